import warnings


def old():
    warnings.warn("use the new one", DeprecationWarning, stacklevel=2)


print([(action, category.__name__, module) for action, _, category, module, _ in warnings.filters])
old()
old()
warnings.warn("plain")
warnings.warn("not shown", ImportWarning)
print("a" is "a")
print("\d")
