# corpus: exit_code = 1
import linecache
import sys

print(sys._getframe().f_lineno, repr(linecache.getline(__file__, 5)))


raise ValueError(
    "over",
    "lines",
)
