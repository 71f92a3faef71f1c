# The stack has no frame below the program's.
import inspect
import sys

frame = sys._getframe()
print(frame.f_back, frame.f_lineno, frame.f_globals is globals(), frame.f_locals is globals())
print([(item.function, item.filename, item.lineno) for item in inspect.stack()])
print(sys.gettrace(), sys.getprofile(), sys.getswitchinterval())

# Hooks that a program sets see the program only.
import sys

calls = []


def tracer(frame, event, argument):
    calls.append((event, frame.f_code.co_name))
    return tracer


def function():
    return 1


sys.settrace(tracer)
function()
sys.settrace(None)
print(calls)
sys.setprofile(lambda frame, event, argument: calls.append(event))
function()
sys.setprofile(None)
print(len(calls), sys.getrefcount(function) < 10)
