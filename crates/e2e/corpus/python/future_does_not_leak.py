# Annotations are evaluated: no __future__ import but the program's own is in force.
# corpus: exit_code = 1
import __future__

print(compile("1", "text", "exec").co_flags & __future__.annotations.compiler_flag)
def f(x: undefined_annotation):
    pass
