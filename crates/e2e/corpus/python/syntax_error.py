# corpus: exit_code = 1
print("never printed")
def broken(:
    pass
