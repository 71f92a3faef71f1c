# corpus: stdin = "a = 2\nprint(a * 21)\n1 / 0\n"
import code

code.interact(banner="hello", exitmsg="bye", local={})
