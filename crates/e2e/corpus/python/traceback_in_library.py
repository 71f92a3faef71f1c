# Frames of the standard library in between.
# corpus: exit_code = 1
import json

json.loads("{broken")
