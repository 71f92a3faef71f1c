# The second line starts what the first would have been without its mark.
print("read", ascii(open(__file__, encoding="utf-8").read(1)))
