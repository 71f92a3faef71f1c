# Daemon threads do not delay the exit, and their finally blocks do not run.
import threading
import time


def wait(begun):
    try:
        begun.set()
        time.sleep(3600)
    finally:
        print("never")


for _ in range(3):
    begun = threading.Event()
    threading.Thread(target=wait, args=(begun,), daemon=True).start()
    begun.wait()
print("end of main")
