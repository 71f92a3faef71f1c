// corpus: stdin = "Ada\n36\n"
const readline = require("readline/promises");
const rl = readline.createInterface({ input: process.stdin, output: process.stdout });
const lines = rl[Symbol.asyncIterator]();
rl.setPrompt("name? ");
rl.prompt();
(async () => {
  console.log((await lines.next()).value);
  console.log((await lines.next()).value);
  console.log(await lines.next());
})();
