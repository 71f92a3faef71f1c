# The order of destructors at the end of the program, for objects in various places.
import codecs
import json
import os
import sys
import threading


class Thing:
    # By itself: at the end of the interpreter a name may be gone.
    def __init__(self, name, write=os.write):
        self.name = name
        self.write = write

    def __del__(self):
        self.write(1, b"destroyed " + self.name.encode() + b"\n")

    def __call__(self, *arguments):
        return arguments


def waiting(write=os.write):
    try:
        yield
    finally:
        write(1, b"the generator ends\n")


def default(thing=Thing("default of a function")):
    return thing


class Class:
    thing = Thing("attribute of a class")


cycle = [Thing("in a cycle of a global")]
cycle.append(cycle)
lost = [Thing("in a cycle without a name")]
lost.append(lost)
del lost
kept = Thing("global")
_kept = Thing("global with an underscore")
generator = waiting()
next(generator)
json.thing = Thing("attribute of a module")
sys.thing = Thing("attribute of sys")
codecs.register(Thing("search function of codecs"))
codecs.register_error("thing", Thing("error handler of codecs"))
local = threading.local()
local.thing = Thing("of a thread")
os.register_at_fork(before=Thing("called before a fork"))
print("end of main")
