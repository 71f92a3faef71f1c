# Output of the last destructors, held back by a stream of the program's own making or changing.
import sys


class Thing:
    def __init__(self, stream):
        self.stream = stream

    def __del__(self):
        self.stream.write("destroyed\n")


sys.stdout.reconfigure(write_through=False)
thing = Thing(sys.stdout)
cycle = [Thing(sys.stdout)]
cycle.append(cycle)
print("end of main")
