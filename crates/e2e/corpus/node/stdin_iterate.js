// corpus: stdin = "first\nsecond\r\nthird"
const readline = require("readline");
(async () => {
  for await (const line of readline.createInterface({ input: process.stdin })) console.log(JSON.stringify(line));
  console.log("done");
})();
