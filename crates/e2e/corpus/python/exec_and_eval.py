# corpus: exit_code = 1
x = 1
exec("x += 1\ndef f(): return x")
print(x, f(), eval("x + 1", {"x": 10}), eval("__name__"))
code = compile("raise ValueError('in compiled text')", "made-up.py", "exec")
print(sorted(k for k in {} if k) or "empty")
exec(code)
