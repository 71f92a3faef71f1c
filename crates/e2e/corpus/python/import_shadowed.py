# A file beside the program shadows the standard library, even a module that a warm interpreter has imported.
# corpus: files = { "random.py" = "value = 'not the library'\n", "uuid.py" = "value = 'nor this'\n" }
import random
import uuid

print(random.value, random.__file__, uuid.value, hasattr(uuid, "uuid4"))
