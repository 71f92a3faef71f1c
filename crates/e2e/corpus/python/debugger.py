# The debugger takes its commands from standard input, and shows the stack.
# corpus: stdin = "where\np value\nup\nstep\nlist\ncontinue\n"
def function():
    value = 42
    breakpoint()
    return value


print(function())
