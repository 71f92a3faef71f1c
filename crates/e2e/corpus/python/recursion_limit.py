import sys

depth = 0


def down():
    global depth
    depth += 1
    down()


print(sys.getrecursionlimit())
try:
    down()
except RecursionError as error:
    print(depth, error)
sys.setrecursionlimit(5000)
depth = 0
try:
    down()
except RecursionError:
    print(depth)
