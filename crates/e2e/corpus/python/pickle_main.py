import copy
import dataclasses
import enum
import pickle


@dataclasses.dataclass
class Point:
    x: int
    y: int = 2


class Color(enum.Enum):
    RED = 1


def function():
    return "called"


data = pickle.dumps((Point(1), Color.RED, function, Point))
print(pickle.loads(data)[:2], pickle.loads(data)[2](), Point.__module__, b"__main__" in data)
print(copy.deepcopy(Point(5)), Point.__qualname__, repr(Point))
