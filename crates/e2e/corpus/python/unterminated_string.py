# corpus: exit_code = 1
text = "no end
