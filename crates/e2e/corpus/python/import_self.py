# The program imports its own file: a second module, and not itself.
import sys

print("running as", __name__)
if __name__ == "__main__":
    import main

    print(main is sys.modules["__main__"], main.__name__, main.__spec__.name)
