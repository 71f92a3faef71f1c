import contextvars

variable = contextvars.ContextVar("variable", default=0)
print(len(contextvars.copy_context()), variable.get())
variable.set(1)
print(contextvars.copy_context().run(variable.get), len(contextvars.copy_context()))

import threading

print(threading.current_thread().name, threading.current_thread() is threading.main_thread(), threading.active_count())
print(threading.main_thread().daemon, threading.main_thread().ident == threading.get_ident())
print(threading.get_native_id() == __import__("os").getpid())
local, total, lock = threading.local(), [0], threading.Lock()


def work():
    local.value = 1
    for _ in range(1000):
        with lock:
            total[0] += local.value


threads = [threading.Thread(target=work) for _ in range(4)]
print([thread.name for thread in threads])
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(total, hasattr(local, "value"), threading.active_count(), threading.stack_size())
