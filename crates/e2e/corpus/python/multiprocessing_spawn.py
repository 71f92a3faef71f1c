# The child imports the program's file again, under another name.
import multiprocessing
import sys

print("loaded as", __name__, flush=True)


def work(queue):
    queue.put((__name__, sys.argv, multiprocessing.current_process().name, multiprocessing.parent_process() is not None))


if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=work, args=(queue,))
    process.start()
    print(queue.get())
    process.join()
    print(process.exitcode)
