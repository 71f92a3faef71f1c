# What stands before the error has run.
# corpus: exit_code = 2
echo before
if true; then
    echo "(
fi
