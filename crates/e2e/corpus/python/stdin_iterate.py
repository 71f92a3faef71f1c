# corpus: stdin = "a\r\nb\nc"
import sys

for number, line in enumerate(sys.stdin):
    print(number, repr(line))
print(list(sys.stdin))
