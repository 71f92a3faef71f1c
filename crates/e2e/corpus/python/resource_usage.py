import os
import resource
import time

usage = resource.getrusage(resource.RUSAGE_SELF)
print(usage.ru_maxrss > 1000, usage.ru_utime + usage.ru_stime > 0, usage.ru_utime + usage.ru_stime < 60)
before = time.process_time()
sum(range(200000))
print(time.process_time() > before, os.times().user >= 0, os.times().children_user)
