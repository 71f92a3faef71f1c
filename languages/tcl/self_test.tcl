set total 0
while {[gets stdin number] >= 0} {
    incr total $number
}
puts "sum of stdin: $total"
puts "args: [join $argv {, }]"

set note [open note.txt w+]
puts $note "written by Tcl"
seek $note 0
puts "file: [gets $note]"
close $note

puts stderr "this line is not part of it"
exit 33
