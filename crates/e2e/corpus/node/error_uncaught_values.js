// A thrown value that is not an Error.
// corpus: exit_code = 1
process.on("exit", (code) => console.log("exit", code, process.exitCode));
throw { not: "an error", nested: [1, { two: 2 }] };
