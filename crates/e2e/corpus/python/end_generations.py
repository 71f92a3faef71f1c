# Destructors that make more to destroy.
import os


class Thing:
    def __init__(self, left, write=os.write):
        self.left = left
        self.write = write

    def __del__(self):
        self.write(1, b"%d left\n" % self.left)
        if self.left:
            type(self)(self.left - 1)
            cycle = [type(self)(0)]
            cycle.append(cycle)


things = [Thing(3)]
things.append(things)
