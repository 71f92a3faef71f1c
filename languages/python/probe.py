import time

time.sleep(1)
print(flush=True)
time.sleep(60)
