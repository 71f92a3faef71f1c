use strict;
use warnings;
use List::Util qw(sum);

print "sum of stdin: ", sum(<STDIN>), "\n";
print "args: ", join(", ", @ARGV), "\n";
open(my $note, ">", "note.txt") or die "note.txt: $!";
print $note "written by Perl\n";
close($note);
open($note, "<", "note.txt") or die "note.txt: $!";
print "file: ", <$note>;
print STDERR "this line is not part of it\n";
exit 13;
