# corpus: exit_code = 1
value = input("prompt: ")
