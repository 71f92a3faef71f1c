# SIGPIPE is ignored: writing to a closed pipe is an EPIPE error.
import os
import signal

print(signal.getsignal(signal.SIGPIPE))
reader, writer = os.pipe()
os.close(reader)
try:
    os.write(writer, b"x")
except BrokenPipeError as error:
    print(error.strerror)
