# corpus: exit_code = 4
set -euo pipefail
echo before
true | (exit 4) | cat
echo never
