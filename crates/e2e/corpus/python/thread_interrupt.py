# Signals reach the main thread, whichever thread raises them.
import _thread
import threading
import time

try:
    threading.Timer(0.05, _thread.interrupt_main).start()
    time.sleep(20)
except KeyboardInterrupt:
    print("main was interrupted")
