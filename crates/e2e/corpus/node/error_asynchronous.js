// corpus: exit_code = 1
setTimeout(() => {
  throw new Error("from a timer");
}, 1);
process.on("exit", () => console.log("exit handlers run"));
