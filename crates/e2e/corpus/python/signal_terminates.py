# corpus: signal = 15
import os
import signal

print("before", end="")
os.kill(os.getpid(), signal.SIGTERM)
signal.pause()
