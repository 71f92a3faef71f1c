import faulthandler
import re
import subprocess
import sys
import tempfile

print(faulthandler.is_enabled())


def where():
    with tempfile.TemporaryFile("w+") as file:
        faulthandler.dump_traceback(file)
        file.seek(0)
        print(re.sub("0x[0-9a-f]+", "ADDRESS", file.read()))


where()
crash = subprocess.run([sys.executable, "-X", "faulthandler", "-c", "import ctypes; ctypes.string_at(0)"], capture_output=True, text=True)
print(crash.returncode, re.sub("0x[0-9a-f]+", "ADDRESS", crash.stderr).splitlines()[:4])
