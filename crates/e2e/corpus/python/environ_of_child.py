# A child sees what the program would, and what the program set.
# corpus: env = { GIVEN = "a value" }
import os
import subprocess

os.environ["SET"] = "here"
os.unsetenv("GIVEN")
print("\n".join(sorted(subprocess.run(["env"], capture_output=True, text=True).stdout.splitlines())))
