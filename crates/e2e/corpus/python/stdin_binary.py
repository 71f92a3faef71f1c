# corpus: stdin = { base64 = "AAEC//4KgAANCg==" }
import sys

print(type(sys.stdin.buffer).__name__, type(sys.stdin.buffer.raw).__name__)
print(sys.stdin.buffer.read(3))
print(sys.stdin.buffer.readline())
print(sys.stdin.buffer.read())
