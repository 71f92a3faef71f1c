import os
import sys


def wait():
    hook = os.path.dirname(__file__)
    sys.path[:] = [entry for entry in sys.path if entry != hook]
    sys.path_importer_cache.pop(hook, None)
    # Makes the finders list the directories of sys.path once, in the template, instead of in each fork.
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
        os._exit(127)  # The agent closed the socket without a program.
    directory, count, *rest = fields
    os.chdir(directory)
    arguments = [os.fsdecode(field) for field in rest[: int(count)]]
    sys.argv[1:] = arguments
    sys.orig_argv.extend(arguments)
    # Cleared first, so that the variables have the order of a cold start.
    os.environb.clear()
    os.environb.update(field.split(b"=", 1) for field in rest[int(count) :])
    if "random" in sys.modules:
        sys.modules["random"].seed()


wait()
# Imports the distribution's sitecustomize instead. If there is none, `site` handles the ImportError.
del sys.modules["sitecustomize"]
import sitecustomize  # noqa: E402, F401
