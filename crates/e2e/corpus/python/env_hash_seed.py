# The interpreter reads PYTHONHASHSEED when it starts.
# corpus: env = { PYTHONHASHSEED = "0" }
import sys

print(hash("text"), hash(b"bytes"), list({"one", "two", "three", "four", "five"}), sys.flags.hash_randomization)
