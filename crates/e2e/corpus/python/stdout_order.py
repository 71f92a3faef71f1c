# Unbuffered: output of print, write and child processes arrives in this order.
import os
import subprocess
import sys

print("one", end=" ")
os.write(1, b"two ")
sys.stdout.write("three ")
subprocess.run(["echo", "four"])
sys.stdout.buffer.write(b"five \xff\n")
print("six")
