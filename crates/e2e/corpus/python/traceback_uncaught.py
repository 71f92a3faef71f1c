# corpus: exit_code = 1
def outer(value):
    return inner(value) + 1


def inner(value):
    return 10 / value


print("before")
outer(0)
