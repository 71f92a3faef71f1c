# corpus: env = { GIVEN = "a value", EMPTY = "" }
env | sort
declare -x | grep -v -e HOSTNAME | sort
echo "$SHLVL $HOME $PWD ${OLDPWD-unset} $IFS" | cat -A
