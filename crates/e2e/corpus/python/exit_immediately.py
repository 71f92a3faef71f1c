# os._exit: no atexit, no flush of what is buffered in a file, but what was printed is out.
# corpus: exit_code = 9
import atexit
import os
import sys

atexit.register(print, "never printed")
file = open("note.txt", "w")
file.write("never written")
sys.stdout.write("no newline")
os._exit(9)
