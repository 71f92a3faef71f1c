# corpus: signal = 13
import os
import signal

signal.signal(signal.SIGPIPE, signal.SIG_DFL)
reader, writer = os.pipe()
os.close(reader)
print("before")
os.write(writer, b"x")
