// Output written to a pipe before process.exit arrives.
// corpus: exit_code = 3
process.stdout.write("x".repeat(60000) + "\n");
process.stderr.write("y".repeat(1000) + "\n");
process.exit(3);
