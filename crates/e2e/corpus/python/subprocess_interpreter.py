# Another process of the same interpreter: it inherits neither variables nor descriptors of the hook.
import subprocess
import sys

code = "import sys, os; print(sys.path, sys.flags, sorted(k for k in os.environ if 'PY' in k), sorted(os.listdir('/proc/self/fd')))"
subprocess.run([sys.executable, "-c", code], check=True)
print(subprocess.run([sys.executable, "no.py"], capture_output=True, text=True))
