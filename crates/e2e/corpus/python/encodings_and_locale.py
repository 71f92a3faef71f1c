import io
import locale
import sys

print(sys.getdefaultencoding(), sys.getfilesystemencoding(), sys.getfilesystemencodeerrors())
print(locale.getpreferredencoding(), locale.getlocale(), locale.setlocale(locale.LC_ALL), locale.localeconv()["decimal_point"])
print(io.text_encoding(None), open("main.py").encoding, sys.flags.utf8_mode)
