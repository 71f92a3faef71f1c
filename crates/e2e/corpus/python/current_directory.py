import os

print(os.getcwd(), os.path.samefile(".", "/proc/self/cwd"), os.readlink("/proc/self/root"))
os.chdir("/")
os.makedirs("/work/sub/folder")
os.chdir("/work/sub")
print(os.getcwd(), os.listdir("."), os.path.relpath(__file__))
