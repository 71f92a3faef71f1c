# The file may be changed while it runs.
import os

with open("main.py", "a") as file:
    file.write("print('appended, not run')\n")
os.rename("main.py", "other.py")
print(os.path.exists(__file__), sorted(os.listdir(".")))
print("done")
