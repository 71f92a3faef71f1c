# corpus: exit_code = 1
def fail(text):
    raise ValueError(text)


errors = []
for text in ("first", "second"):
    try:
        fail(text)
    except ValueError as error:
        error.add_note("a note on " + text)
        errors.append(error)
raise ExceptionGroup("both", errors)
