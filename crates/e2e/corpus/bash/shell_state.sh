# Options and variables of the shell.
echo "$- $SHELLOPTS $BASHOPTS"
set -o
shopt
trap -p
ulimit -a | grep -v -e processes -e signals
umask
jobs
hash
echo "$BASH_VERSION $EUID ${GROUPS[*]} $LINENO $BASH_SUBSHELL"
