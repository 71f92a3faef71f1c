# A destructor that a class of the library is given.
import os
import json.decoder


def destroyed(self, write=os.write):
    write(1, b"destroyed\n")


decoder = json.decoder.JSONDecoder()
setattr(json.decoder.JSONDecoder, "__del" + "__", destroyed)
print("end of main")
