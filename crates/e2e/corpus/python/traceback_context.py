# corpus: exit_code = 1
class Problem(Exception):
    def __str__(self):
        return "line one\nline two"


try:
    [].pop()
except IndexError:
    raise Problem
