# Modules are whole, and each says where it is from.
import sys
import json
import random
import socket
import ssl
import uuid

for module in (json, random, socket, ssl, uuid, sys):
    print(module.__name__, sys.modules[module.__name__] is module, module.__spec__.name, getattr(module, "__file__", None))
print(sys.modules["__main__"].__spec__, "main" in sys.modules)
