# corpus: exit_code = 1
print("before")
undefined_name
