# SystemExit in a thread ends that thread only.
import sys
import threading

thread = threading.Thread(target=lambda: sys.exit(5))
thread.start()
thread.join()
print("main goes on")
