# What a context variable holds is destroyed at the end.
import contextvars
import os


class Thing:
    def __del__(self, write=os.write):
        write(1, b"destroyed\n")


contextvars.ContextVar("variable").set(Thing())
print("end of main")
