import sys

print("é ∑ 漢 😀")
print(ascii("é\udcff"))
try:
    print("\udcff")
except UnicodeEncodeError as error:
    print(error.reason)
print("\udcff", file=sys.stderr)
sys.stdout.reconfigure(encoding="ascii", errors="backslashreplace")
print("é", sys.stdout.encoding)
