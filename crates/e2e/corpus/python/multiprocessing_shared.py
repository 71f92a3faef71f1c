import multiprocessing
from multiprocessing import shared_memory


def work(counter, name):
    for _ in range(100):
        with counter.get_lock():
            counter.value += 1
    block = shared_memory.SharedMemory(name)
    block.buf[0] += 1
    block.close()


if __name__ == "__main__":
    counter = multiprocessing.Value("i", 0)
    block = shared_memory.SharedMemory(create=True, size=16)
    block.buf[0] = 7
    process = multiprocessing.Process(target=work, args=(counter, block.name))
    process.start()
    process.join()
    print(counter.value, block.buf[0], process.exitcode)
    block.close()
    block.unlink()
