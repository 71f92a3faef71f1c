# `if __name__ == "__main__"` runs its block, with an exit code from it.
# corpus: exit_code = 3
import sys


def main():
    print("main ran as", __name__)
    return 3


if __name__ == "__main__":
    sys.exit(main())
print("never reached")
