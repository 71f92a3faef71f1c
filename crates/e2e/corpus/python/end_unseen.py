# What a program keeps that has nothing to do at its end, and one thing that has, in its own class or another's.
import json
import re
import weakref


class Plain:
    __slots__ = "values", "__weakref__"

    def __init__(self, *values):
        self.values = values


class Told(dict):
    pass


things = [Plain(1, [2]), Plain({3: (4,)}), lambda: things, re.compile("a"), json.JSONDecoder(), {5}.union]
told = Told(key=things)
watched = weakref.ref(told)
reference = weakref.ref(things[0], lambda reference: print("a callback"))
print(len(things), watched() is told)
