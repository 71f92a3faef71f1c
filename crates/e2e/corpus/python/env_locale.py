# corpus: env = { LC_ALL = "POSIX", PYTHONCOERCECLOCALE = "0", PYTHONUTF8 = "0" }
import locale
import sys

print(sys.stdout.encoding, sys.getfilesystemencoding(), locale.getpreferredencoding(), sys.flags.utf8_mode)
