# The process waits for all threads except daemons.
import atexit
import threading
import time

atexit.register(print, "atexit comes last")


def work():
    time.sleep(0.1)
    print("thread after main,", threading.main_thread().is_alive())


threading.Thread(target=work).start()
threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
print("end of main")
