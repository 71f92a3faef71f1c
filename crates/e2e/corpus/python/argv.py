# corpus: args = ["alpha", "two words", "", "é", "-v", "--", "-c", "--help", "$HOME", "*"]
import sys

print(len(sys.argv))
for argument in sys.argv:
    print(repr(argument))
