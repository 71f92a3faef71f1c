# A recursion that ends in a traceback with repeated lines; how often says how deep the program started.
# corpus: exit_code = 1
def down(depth):
    return down(depth + 1)


down(0)
