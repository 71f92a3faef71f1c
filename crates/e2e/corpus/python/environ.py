# corpus: env = { GIVEN = "a value", UNICODE = "é", EMPTY = "" }
import os

for name in sorted(os.environ):
    print(f"{name}={os.environ[name]!r}")
print(os.getenv("PYTHONPATH"), os.getenv("PYTHONSTARTUP"))
