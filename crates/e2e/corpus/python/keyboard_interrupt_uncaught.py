# Python ends itself by the signal after the traceback.
# corpus: signal = 2
print("before")
raise KeyboardInterrupt
