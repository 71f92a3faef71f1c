# corpus: env = { PYTHONPATH = "/work/library:/nowhere" }
# corpus: files = { "library/helper.py" = "value = 'from PYTHONPATH'\n" }
import sys
import helper

print(helper.value, helper.__file__, sys.path[:3])
