# corpus: signal = 6
import os

print("before")
os.abort()
