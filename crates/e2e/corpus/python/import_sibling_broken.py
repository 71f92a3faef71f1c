# corpus: files = { "sibling.py" = "def f():\n    return 1 +\n" }
# corpus: exit_code = 1
import sibling
