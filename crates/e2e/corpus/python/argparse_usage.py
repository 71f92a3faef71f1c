# corpus: args = ["--count", "many"]
# corpus: exit_code = 2
import argparse

parser = argparse.ArgumentParser(description="A tool.")
parser.add_argument("--count", type=int, default=1)
print(parser.prog)
parser.parse_args()
