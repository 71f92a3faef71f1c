let rounds = 0;
process.on("beforeExit", (code) => {
  console.log("beforeExit", code, rounds);
  if (rounds++ < 2) setImmediate(() => console.log("more work"));
});
process.on("exit", (code) => console.log("exit", code));
process.on("exit", (code) => console.log("exit, second"));
console.log("end of main");
