# Much at once, all of it kept.
import sys

for number in range(20000):
    sys.stdout.write(f"{number:07}\n")
