import sys

print(sys.flags)
print(sys._xoptions, sys.warnoptions, sys.dont_write_bytecode)
print(sys.thread_info, sys.hash_info.algorithm, sys.implementation.name, sys.platform, sys.version)
