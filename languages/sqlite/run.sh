# Runs main.sql with an empty database in memory. The arguments are bound to ?1, ?2, …, each as a blob's text so that none
# needs quotes.
n=0
for argument; do
    n=$((n + 1))
    hex=$(printf %s "$argument" | od -An -v -tx1 | tr -d ' \n')
    set -- "$@" -cmd ".parameter set ?$n \"CAST(x'$hex' AS TEXT)\""
    shift
done
exec sqlite3 -batch -bail "$@" :memory: '.read main.sql'
