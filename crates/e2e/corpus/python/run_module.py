# corpus: files = { "tool.py" = "import sys\nprint(__name__, sys.argv, __file__)\nanswer = 42\n" }
# corpus: args = ["x"]
import runpy
import sys

print(runpy.run_path("tool.py", run_name="__main__")["answer"])
print(runpy.run_module("tool")["answer"], runpy.run_module("tool", alter_sys=True)["__name__"])
print(sys.argv, __name__)
