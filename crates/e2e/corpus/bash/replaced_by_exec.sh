# corpus: exit_code = 9
# corpus: args = ["given"]
trap 'echo "not run: the shell is gone"' EXIT
exec bash -c 'echo "$0 $1 $SHLVL"; exit 9' name "$1"
