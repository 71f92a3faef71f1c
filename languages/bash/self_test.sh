total=0
while read -r number; do
    total=$((total + number))
done
echo "sum of stdin: $total"
printf -v joined '%s, ' "$@"
echo "args: ${joined%, }"
echo "written by Bash" > note.txt
echo "file: $(< note.txt)"
echo "this line is not part of it" >&2
exit 3
