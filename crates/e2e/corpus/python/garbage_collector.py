import gc
import tracemalloc

print(gc.isenabled(), gc.get_threshold(), gc.get_debug(), gc.callbacks, gc.garbage, tracemalloc.is_tracing())


class Node:
    def __del__(self):
        print("collected")


node = Node()
node.self = node
del node
print(gc.collect() > 0, gc.garbage)
