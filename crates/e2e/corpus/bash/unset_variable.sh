# corpus: exit_code = 1
set -u
echo before
bash -c 'echo "inner $0"; no-such-command-at-all'
echo "code $?"
echo "$undefined_variable"
