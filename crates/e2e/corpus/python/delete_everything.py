# The program's directory goes away under it.
# corpus: exit_code = 1
import os
import shutil

for name in os.listdir("."):
    os.remove(name)
print(os.listdir("."))
raise ValueError("without its source")
