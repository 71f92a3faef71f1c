# sys.exit(TEXT) prints the text to standard error and exits with 1.
# corpus: exit_code = 1
import sys

sys.exit("the reason, é")
