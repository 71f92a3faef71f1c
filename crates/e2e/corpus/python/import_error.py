# corpus: exit_code = 1
print("before")
import no_such_module
