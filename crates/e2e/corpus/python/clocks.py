# Clocks go on, and agree with each other.
import datetime
import os
import time

for clock in (time.monotonic, time.perf_counter, time.time, time.process_time):
    first = clock()
    second = clock()
    print(clock.__name__, first > 0, second >= first)
start_real, start = time.time(), time.monotonic()
time.sleep(0.05)
print(abs((time.time() - start_real) - (time.monotonic() - start)) < 1, time.monotonic() - start >= 0.05)
print(datetime.datetime.now().year >= 2024, time.process_time() < 60)
open("file", "w").close()
print(abs(os.stat("file").st_mtime - time.time()) < 30)

import os
import resource
import time

usage = resource.getrusage(resource.RUSAGE_SELF)
print(usage.ru_maxrss > 1000, usage.ru_utime + usage.ru_stime > 0, usage.ru_utime + usage.ru_stime < 60)
before = time.process_time()
sum(range(200000))
print(time.process_time() > before, os.times().user >= 0, os.times().children_user)
