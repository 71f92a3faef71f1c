import importlib.util
import site
import sys

print(site.getsitepackages(), site.getuserbase(), site.ENABLE_USER_SITE, site.PREFIXES)
print(importlib.util.find_spec("usercustomize"))
spec = importlib.util.find_spec("sitecustomize")
print(spec and spec.origin, "sitecustomize" in sys.modules, "usercustomize" in sys.modules)
