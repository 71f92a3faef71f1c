# corpus: exit_code = 1
if True:
print("never printed")
