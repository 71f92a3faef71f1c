# Globals are destroyed when the program ends.
import weakref


class Thing:
    def __init__(self, name):
        self.name = name

    def __del__(self):
        print("destroyed", self.name)


kept = Thing("kept")
dropped = Thing("dropped")
del dropped
weakref.finalize(kept, print, "finalizer at exit")
print("end of main")
