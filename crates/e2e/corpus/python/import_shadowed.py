# A file beside the program goes before the standard library, also for what a warm interpreter may have.
# corpus: files = { "random.py" = "value = 'not the library'\n", "uuid.py" = "value = 'nor this'\n" }
import random
import uuid

print(random.value, random.__file__, uuid.value, hasattr(uuid, "uuid4"))
