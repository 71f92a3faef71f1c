# Parts with state of their own, right after start.
import ctypes
import decimal
import hashlib
import itertools
import re
import sqlite3
import ssl
import zlib

print(decimal.getcontext().prec, decimal.Decimal(1) / 3)
print(hashlib.sha256(b"x").hexdigest()[:16], zlib.crc32(b"x"), next(itertools.count()))
print(sqlite3.connect(":memory:").execute("select 6 * 7, upper('x')").fetchone())
print(ssl.create_default_context().verify_mode.name, ctypes.get_errno(), re.purge())
print(ctypes.CDLL(None).abs(-5))
