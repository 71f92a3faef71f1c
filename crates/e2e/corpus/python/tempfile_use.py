import os
import stat
import tempfile

print(tempfile.tempdir, tempfile.gettempdir(), tempfile.gettempprefix())
with tempfile.NamedTemporaryFile("w+", suffix=".txt") as file:
    name = file.name
    print(os.path.dirname(name), len(os.path.basename(name)), oct(os.stat(name).st_mode))
print(os.path.exists(name))
with tempfile.TemporaryDirectory() as folder:
    print(stat.filemode(os.stat(folder).st_mode), os.listdir(folder))
print(len({tempfile.mktemp() for _ in range(50)}), os.listdir("/tmp"))
