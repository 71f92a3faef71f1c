# corpus: signal = 11
import ctypes

print("before")
ctypes.string_at(0)
