# What the C library holds back is written at the end too.
import ctypes

ctypes.CDLL(None).printf(b"without a newline")
