# Unseeded generators differ from each other and from a generator with seed 0.
import os
import random
import secrets
import uuid

values = [random.getrandbits(64), random.Random().getrandbits(64), secrets.randbits(64), int.from_bytes(os.urandom(8), "big"), uuid.uuid4().int >> 64, random.SystemRandom().getrandbits(64)]
print(len(set(values)), random.Random(0).getrandbits(64) in values)
print(uuid.uuid4().version, uuid.uuid1().version, len(secrets.token_hex(8)))
