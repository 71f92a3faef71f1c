from __future__ import annotations


def f(x: undefined_annotation) -> whatever:
    pass


print(f.__annotations__)
value: int = 3
print(__annotations__)
print(type(annotations).__name__)
