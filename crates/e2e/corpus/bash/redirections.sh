exec 3> note.txt
echo three >&3
exec 3>&-
cat note.txt
echo "to stderr" >&2
{ echo out; echo err >&2; } 2>&1 | sort
diff <(echo a) <(echo a) 2> /dev/null || cat <(echo "process substitution")
cat <<- TEXT
	here $((6 * 7))
	TEXT
cat <<< "a string"
no-such-command 2> message.txt
echo "$? $(cat message.txt)"
echo x > /dev/full || echo "full: $?"
