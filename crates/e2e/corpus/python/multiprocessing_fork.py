import multiprocessing
import os
import sys

value = "as the parent left it"


def work(pipe):
    pipe.send((value, __name__, multiprocessing.current_process().name))
    sys.exit(7)


if __name__ == "__main__":
    print(multiprocessing.get_start_method(), multiprocessing.current_process().name, multiprocessing.parent_process())
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=work, args=(theirs,))
    process.start()
    print(ours.recv())
    process.join()
    print(process.exitcode, multiprocessing.active_children())
