# corpus: stdin = { base64 = "b2sK//4K" }
import sys

print(repr(sys.stdin.readline()))
try:
    print(ascii(sys.stdin.readline()))
except UnicodeDecodeError as error:
    print(error.reason)
