# Nothing is in the main module but what a program starts with.
print(sorted(globals()))
print(sorted(dir()))
print(locals() is globals())
print({name: value for name, value in globals().items() if name in ("__doc__", "__package__", "__spec__", "__annotations__")})
