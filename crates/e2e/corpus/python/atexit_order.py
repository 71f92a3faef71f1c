import atexit

print(atexit._ncallbacks())
for number in range(3):
    atexit.register(print, "callback", number)
atexit.unregister(len)


@atexit.register
def last():
    print("registered last, called first")


print("end of main")
