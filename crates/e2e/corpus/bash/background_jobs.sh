(sleep 0.2; exit 5) &
first=$!
(exit 6) &
wait $!
echo "second: $?"
wait $first
echo "first: $?"
sleep 100 &
kill -KILL $!
wait $!
echo "killed: $?"
coproc cat
echo "to the other" >&"${COPROC[1]}"
read -r answer <&"${COPROC[0]}"
echo "$answer"
