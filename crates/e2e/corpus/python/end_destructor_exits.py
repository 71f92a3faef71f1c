# A destructor that ends the process: no other destructor runs after it.
# corpus: exit_code = 7
import os


class Thing:
    def __init__(self, exit=os._exit):
        self.exit = exit

    def __del__(self):
        self.exit(7)


thing = [Thing()]
thing.append(thing)
del thing
