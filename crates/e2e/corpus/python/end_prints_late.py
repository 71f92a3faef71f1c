# Output of the last destructors, through a buffered stream that the program made or changed.
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
