# No descriptor is open but the three; the next one is 3.
import os

print(sorted(int(name) for name in os.listdir("/proc/self/fd")))
print(os.open("/dev/null", os.O_RDONLY), os.open("/dev/null", os.O_RDONLY), os.pipe())
print(os.popen("ls /proc/self/fd | wc -l").read().strip())
