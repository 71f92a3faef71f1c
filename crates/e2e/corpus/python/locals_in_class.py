# Scopes at the top level and in classes.
x = "global"


class Scope:
    x = x + " in class"
    y = [x for _ in range(1)]


print(Scope.x, Scope.y, [x for x in range(2)], x)
print(vars() is globals(), "__file__" in vars())
del x
try:
    x
except NameError as error:
    print(error, error.name)
