# corpus: signal = 15
trap 'echo "USR1"' USR1
trap 'echo "INT"' INT
trap '' HUP
kill -USR1 $$
kill -INT $$
kill -HUP $$
bash -c 'kill -HUP $$; echo "ignored here too"'
trap -p | sort
kill -TERM $$
echo never
