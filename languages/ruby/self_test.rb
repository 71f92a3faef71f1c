$stdout.sync = true

puts "sum of stdin: #{$stdin.each_line.sum(&:to_i)}"
puts "args: #{ARGV.join(', ')}"
File.write("note.txt", "written by Ruby\n")
puts "file: #{File.read('note.txt')}"
warn "this line is not part of it"
exit 11
