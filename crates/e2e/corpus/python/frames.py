# There is nothing below the program's own frame.
import inspect
import sys

frame = sys._getframe()
print(frame.f_back, frame.f_lineno, frame.f_globals is globals(), frame.f_locals is globals())
print([(item.function, item.filename, item.lineno) for item in inspect.stack()])
print(sys.gettrace(), sys.getprofile(), sys.getswitchinterval())
