# corpus: stdin = "first line\n  second \\ line\nrest\nand more"
read -r first
echo "<$first>"
read -r -n 3 part
echo "<$part>"
head -c 4
mapfile -t lines
printf '[%s]' "${lines[@]}"
read -r nothing
echo "end: $? <$nothing>"
