"""Prints the state that must be the same with and without the hook. crates/agent/tests/hooks.rs compares both."""

import atexit
import os
import sys

print(__name__, __file__, sys.argv, sys.orig_argv, sys.path, sys.flags)
print(list(os.environ.items()), os.getcwd(), sorted(os.listdir("/proc/self/fd")))
print(sorted(sys.modules), sorted(sys.path_importer_cache))
print(os.getpid() == os.getsid(0) == os.getpgid(0), os.umask(0))

import multiprocessing  # noqa: E402
import resource  # noqa: E402
import signal  # noqa: E402
import subprocess  # noqa: E402
import threading  # noqa: E402

print(subprocess.run(["env"], capture_output=True, text=True).stdout)
print(subprocess.run([sys.executable, "-c", "print(1)"], capture_output=True))
print(resource.getrlimit(resource.RLIMIT_NOFILE), signal.getsignal(signal.SIGINT))
print(sum(int(line) for line in sys.stdin), [thread.name for thread in threading.enumerate()])
with multiprocessing.get_context("fork").Pool(2) as pool:
    print(pool.map(abs, [-1, -2]))
atexit.register(print, "at exit")


def fails():
    raise ValueError("as it is")


fails()
