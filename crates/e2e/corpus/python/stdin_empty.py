import sys

print(repr(sys.stdin.read()), repr(sys.stdin.readline()), sys.stdin.isatty(), sys.stdin.closed)
