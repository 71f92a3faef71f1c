// corpus: exit_code = 7
process.exitCode = 7;
console.log("goes on until nothing is left to do");
setTimeout(() => console.log("last"), 10);
