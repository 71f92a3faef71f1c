# corpus: exit_code = 1
try:
    {}["missing"]
except KeyError as error:
    raise ValueError("while handling") from error
