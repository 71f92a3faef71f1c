# More than is kept: the middle is left out, the end is there.
# corpus: limits = { output_bytes = 1000 }
import sys

for number in range(2000):
    print("line", number)
sys.stderr.write("x" * 5000 + "end\n")
