# corpus: stdin = "one\ntwo\n\nlast without newline"
import sys

text = sys.stdin.read()
print(repr(text), repr(sys.stdin.read()))
print(sys.stdin.name, sys.stdin.mode, sys.stdin.encoding, sys.stdin.errors, sys.stdin.newlines)
