# corpus: exit_code = 1
"""
>>> 1 + 1
3
>>> double(4)
8
"""
import doctest
import sys


def double(x):
    """
    >>> double("ab")
    'abab'
    """
    return x + x


result = doctest.testmod()
print(result)
sys.exit(result.failed)
