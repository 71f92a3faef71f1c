import logging

print(logging.root.handlers, logging.root.level, logging.getLogger("mine").getEffectiveLevel(), len(logging._handlerList))
logging.info("not shown")
logging.warning("shown")
logging.basicConfig(format="%(levelname)s %(module)s %(filename)s:%(lineno)d %(processName)s %(threadName)s %(message)s", force=True)
logging.error("with all")
try:
    1 / 0
except ZeroDivisionError:
    logging.exception("and a traceback")
