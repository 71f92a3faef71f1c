# corpus: args = ["alpha", "two words", "", "é", "*", "-x"]
echo "$0 $# ${BASH_SOURCE[0]} ${FUNCNAME[*]}"
printf '<%s>' "$@"
shift 2
echo " $1 $#"
