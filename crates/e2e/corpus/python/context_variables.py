import contextvars

variable = contextvars.ContextVar("variable", default=0)
print(len(contextvars.copy_context()), variable.get())
variable.set(1)
print(contextvars.copy_context().run(variable.get), len(contextvars.copy_context()))
