import builtins

print(sorted(dir(builtins)))
print(builtins.print is print, open.__module__, __import__.__name__, type(builtins.open).__name__)
