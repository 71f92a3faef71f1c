import os
import sys


def wait():
    hook = os.path.dirname(__file__)
    sys.path[:] = [entry for entry in sys.path if entry != hook]
    sys.path_importer_cache.pop(hook, None)
    # The finders list the directories of sys.path now, and not in each fork.
    for finder in sys.meta_path:
        finder.find_spec("sitecustomize", None)

    control = 63
    os.write(control, b"w")
    message = b""
    while piece := os.read(control, 65536):
        message += piece
    os.close(control)
    fields = message.split(b"\0")[:-1]
    if len(fields) < 2:
        os._exit(127)  # The agent closed the socket: there is no program.
    directory, count, *rest = fields
    os.chdir(directory)
    arguments = [os.fsdecode(field) for field in rest[: int(count)]]
    sys.argv[1:] = arguments
    sys.orig_argv.extend(arguments)
    # Cleared first, so that the order is that of a plain start.
    os.environb.clear()
    os.environb.update(field.split(b"=", 1) for field in rest[int(count) :])
    if "random" in sys.modules:
        sys.modules["random"].seed()


wait()
# The distribution's own module of this name comes in its place. Without one, `site` expects the ImportError.
del sys.modules["sitecustomize"]
import sitecustomize  # noqa: E402, F401
