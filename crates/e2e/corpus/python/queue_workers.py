import queue
import threading
from concurrent.futures import ThreadPoolExecutor

jobs, results = queue.Queue(), queue.Queue()


def work():
    while (job := jobs.get()) is not None:
        results.put(job * job)


threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads:
    thread.start()
for job in range(20):
    jobs.put(job)
for _ in threads:
    jobs.put(None)
for thread in threads:
    thread.join()
print(sorted(results.queue))
with ThreadPoolExecutor(2) as pool:
    print(list(pool.map(str.upper, "abc")), pool.submit(lambda: threading.current_thread().name).result()[:20])
