// corpus: exit_code = 42
process.on("exit", (code) => console.log("exit", code));
process.exit(42);
