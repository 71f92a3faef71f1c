import os

open("file.txt", "w").close()
os.mkdir("folder")
print(oct(os.stat("file.txt").st_mode), oct(os.stat("folder").st_mode))
print(oct(os.umask(0o77)), oct(os.umask(0)))
