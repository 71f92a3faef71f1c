import getpass
import os
import pwd

print(os.getuid(), os.geteuid(), os.getgid(), os.getgroups(), os.path.expanduser("~"))
print(pwd.getpwuid(os.getuid()).pw_name, getpass.getuser())
