# os._exit: no atexit and no flush of buffered files, but printed output arrives.
# corpus: exit_code = 9
import atexit
import os
import sys

atexit.register(print, "never printed")
file = open("note.txt", "w")
file.write("never written")
sys.stdout.write("no newline")
os._exit(9)
