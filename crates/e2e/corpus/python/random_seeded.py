import random
import uuid

random.seed(42)
print([random.randrange(1000) for _ in range(8)], random.random(), random.gauss(0, 1))
generator = random.Random("text")
print(generator.sample(range(100), 5), generator.choice("abcdef"))
print(uuid.uuid5(uuid.NAMESPACE_DNS, "example.org"))
