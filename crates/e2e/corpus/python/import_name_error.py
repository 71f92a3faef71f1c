# corpus: exit_code = 1
from os import no_such_name
