say "sum of stdin: {$*IN.lines.sum}";
say "args: {@*ARGS.join(', ')}";
spurt "note.txt", "written by Raku\n";
print "file: {slurp 'note.txt'}";
note "this line is not part of it";
exit 38;
