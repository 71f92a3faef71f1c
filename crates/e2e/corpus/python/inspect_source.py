import inspect


def documented(a, *, b: int = 2) -> str:
    """Says what it does."""
    return f"{a}{b}"  # a comment


class Thing:
    def method(self): ...


print(inspect.getsource(documented))
print(inspect.getsource(Thing), inspect.getsourcelines(Thing)[1])
print(inspect.getfile(documented), inspect.getsourcefile(Thing), inspect.getmodule(documented))
print(inspect.signature(documented), inspect.getcomments(Thing), inspect.getdoc(documented))
import __main__

print(inspect.getsource(__main__) == open(__file__).read())
