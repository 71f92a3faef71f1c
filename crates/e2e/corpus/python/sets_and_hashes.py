# Hashes and sets that do not depend on the hash seed.
print({3, 1, 2, 100, -1}, {1.5, 2, True}, hash(10**20), hash(1.5), hash(-1), hash(()), hash((1, 2)))
print(dict.fromkeys("hello"), sorted({"b", "a", "c"}), frozenset(range(5)))
print(hash(None) == hash(None), hash("x") == hash("x"), hash("") , hash(float("inf")))
