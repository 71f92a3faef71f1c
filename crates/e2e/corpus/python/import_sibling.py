# corpus: files = { "sibling.py" = "import __main__\nprint('sibling is', __name__, __file__)\nfrom_main = __main__.value\n", "package/__init__.py" = "from .part import part\n", "package/part.py" = "part = __package__ + '/' + __name__\n" }
value = "from main"
import sibling
import package
import os
import importlib

print(sibling.from_main, package.part, package.__path__, sibling.__spec__.origin)
print(os.path.exists("__pycache__"), sibling.__cached__)
importlib.reload(sibling)
