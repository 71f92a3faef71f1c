# corpus: files = { "shapes.py" = "'''Shapes.'''\nclass Square:\n    '''Four sides.'''\n    side = 1\n    def area(self):\n        '''The area.'''\n" }
import pydoc
import shapes


def mine(x):
    "My own function."


help(mine)
help(str.upper)
print(pydoc.plain(pydoc.render_doc(shapes.Square)))
help("shapes")
