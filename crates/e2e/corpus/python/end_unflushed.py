# A file that was not closed has all that was written to it once the program has come to its end.
import os

path = "unflushed.txt"
child = os.fork()
if child:
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    print(open(path).read())
else:
    file = open(path, "w")
    file.write("held back until the end")
