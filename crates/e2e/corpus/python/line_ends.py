# Written with CR LF.
text = """first
second"""
print(repr(text))
print("done")
