for name in """
    argparse ast asyncio base64 bisect calendar collections concurrent.futures contextlib copy csv dataclasses datetime
    decimal difflib enum fractions functools glob hashlib heapq hmac html http.client inspect io itertools json logging
    math multiprocessing operator os pathlib pickle pprint queue random re sched secrets shutil signal socket sqlite3
    ssl statistics string struct subprocess tempfile textwrap threading time timeit traceback types typing unittest
    urllib.request uuid warnings weakref xml.etree.ElementTree zipfile zlib
""".split():
    try:
        __import__(name)
    except ImportError:
        pass
