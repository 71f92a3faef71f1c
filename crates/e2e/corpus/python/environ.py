# corpus: env = { GIVEN = "a value", UNICODE = "é", EMPTY = "" }
import os

for name in sorted(os.environ):
    print(f"{name}={os.environ[name]!r}")
print(os.getenv("PYTHONPATH"), os.getenv("PYTHONSTARTUP"))

# A child sees what the program would, and what the program set.
import os
import subprocess

os.environ["SET"] = "here"
os.unsetenv("GIVEN")
print("\n".join(sorted(subprocess.run(["env"], capture_output=True, text=True).stdout.splitlines())))
