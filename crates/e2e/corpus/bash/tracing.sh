set -x
value=1
: "$value" 'two words'
function inner { caller 0; echo "${BASH_LINENO[*]} ${FUNCNAME[*]}"; }
function outer { inner; }
outer
set +x
PS4='+ $LINENO: '
BASH_XTRACEFD=1
set -x
echo traced
