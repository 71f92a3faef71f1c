# A text goes to standard error, the code is 1.
# corpus: exit_code = 1
import sys

sys.exit("the reason, é")
