# The environment that the kernel knows the process by.
# corpus: env = { GIVEN = "value" }
for entry in sorted(open("/proc/self/environ", "rb").read().split(b"\0")):
    print(entry)
