# /proc/self/cmdline, as ps shows it. Arguments of the program are not in it after a takeover (docs/warm.md): it has none.
import subprocess

print(open("/proc/self/cmdline", "rb").read().split(b"\0"))
print(open("/proc/self/comm").read())
print(subprocess.run(["sh", "-c", "tr '\\0' ' ' < /proc/$PPID/cmdline"], capture_output=True, text=True).stdout)
