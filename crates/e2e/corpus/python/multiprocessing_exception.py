# The child's traceback, from its start.
import multiprocessing


def work():
    raise RuntimeError("in the child")


if __name__ == "__main__":
    process = multiprocessing.Process(target=work)
    process.start()
    process.join()
    print(process.exitcode)
