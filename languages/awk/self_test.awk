BEGIN {
    while ((getline number < "/dev/stdin") > 0)
        total += number
    print "sum of stdin: " total
    printf "args: "
    for (i = 1; i < ARGC; i++)
        printf "%s%s", ARGV[i], i < ARGC - 1 ? ", " : "\n"
    print "written by Awk" > "note.txt"
    close("note.txt")
    getline note < "note.txt"
    print "file: " note
    print "this line is not part of it" > "/dev/stderr"
    exit 25
}
