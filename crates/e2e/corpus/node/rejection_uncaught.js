// corpus: exit_code = 1
process.on("exit", (code) => console.log("exit", code));
async function fail() {
  throw new Error("in a promise");
}
fail();
