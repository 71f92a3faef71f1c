# The site module's `exit`, which closes standard input first.
# corpus: exit_code = 6
import sys

print(repr(exit), repr(quit))
try:
    quit(5)
except SystemExit as error:
    print("caught", error.code, sys.stdin.closed)
exit(6)
