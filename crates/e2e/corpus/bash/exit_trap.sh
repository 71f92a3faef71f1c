# corpus: exit_code = 7
trap 'echo "exit trap, $?"' EXIT
trap 'echo "error trap in line $LINENO"' ERR
false
(exit 3)
echo "subshell: $?"
exit 7
