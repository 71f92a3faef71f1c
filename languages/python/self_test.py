import sys

total = sum(int(line) for line in sys.stdin)
print("sum of stdin:", total)
print("args:", ", ".join(sys.argv[1:]))
with open("note.txt", "w", encoding="utf-8") as note:
    note.write("written by Python\n")
with open("note.txt", encoding="utf-8") as note:
    print("file:", note.read().strip())
print("this line is not part of it", file=sys.stderr)
sys.exit(4)
