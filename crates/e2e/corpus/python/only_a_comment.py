# An empty program prints nothing.
