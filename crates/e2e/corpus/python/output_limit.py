# More output than the limit: the result has head and tail, without the middle.
# corpus: limits = { output_bytes = 1000 }
import sys

for number in range(2000):
    print("line", number)
sys.stderr.write("x" * 5000 + "end\n")
