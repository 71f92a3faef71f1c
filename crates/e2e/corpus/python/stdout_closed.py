# corpus: exit_code = 1
import os

print("before")
os.close(1)
print("after")
