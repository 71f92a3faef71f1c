# Lines before the error have run.
# corpus: exit_code = 2
echo before
if true; then
    echo "(
fi
