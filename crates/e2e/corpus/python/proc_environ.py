# The environment that the kernel knows the process by: what every program of the language is given. After a
# takeover the request's own variables are not in it, and one of the hook's is (docs/warm.md).
for entry in sorted(open("/proc/self/environ", "rb").read().split(b"\0")):
    if not entry.startswith((b"PYTHONPATH=", b"GIVEN=")):
        print(entry)

# A child has all of it.
# corpus: env = { GIVEN = "value" }
import subprocess

print(subprocess.run(["sh", "-c", "tr '\\0' '\\n' < /proc/self/environ"], capture_output=True, text=True).stdout)
