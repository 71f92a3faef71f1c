# -*- coding: latin-1 -*-
# The file is UTF-8, and its cookie makes Python read it as Latin-1.
print(ascii("é"), len("é"))
