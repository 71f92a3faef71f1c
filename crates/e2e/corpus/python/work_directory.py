# Nothing lies around: neither in the work directory nor where temporary files go.
import os
import stat

print(os.getcwd(), os.environ.get("PWD"))
for folder in (".", "/tmp", "/dev/shm", "/var/tmp"):
    print(folder, sorted(os.listdir(folder)) if os.path.isdir(folder) else "absent")
entry = os.stat("main.py")
print(stat.filemode(entry.st_mode), entry.st_uid, entry.st_gid, entry.st_nlink)
print(stat.filemode(os.stat(".").st_mode), os.access(".", os.W_OK))

# A fork has a file over the boot id (docs/warm.md).
for line in sorted(open("/proc/self/mounts")):
    _, point, kind, *_ = line.split()
    if not point.endswith("/boot_id"):
        print(point, kind)
