# The program deletes the files of its working directory.
# corpus: exit_code = 1
import os
import shutil

for name in os.listdir("."):
    os.remove(name)
print(os.listdir("."))
raise ValueError("without its source")
