import io
import re
import unittest


class Arithmetic(unittest.TestCase):
    def test_right(self):
        self.assertEqual(1 + 1, 2)

    def test_wrong(self):
        self.assertEqual(1 + 1, 3)


if __name__ == "__main__":
    stream = io.StringIO()
    program = unittest.main(argv=["main.py"], exit=False, testRunner=unittest.TextTestRunner(stream, verbosity=2))
    print(re.sub(r"in [\d.]+s", "in TIME", stream.getvalue()))
    print(len(program.result.failures))
