# -*- coding: latin-1 -*-
# What is UTF-8 in the file reads as Latin-1 here.
print(ascii("é"), len("é"))
