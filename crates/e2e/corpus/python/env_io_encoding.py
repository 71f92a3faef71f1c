# corpus: env = { PYTHONIOENCODING = "latin-1:replace" }
import sys

print(sys.stdout.encoding, sys.stdin.errors, "é ∑")
