const fs = require("fs");
fs.writeFileSync("note.txt", "é\n");
fs.appendFileSync("note.txt", "more\n");
fs.mkdirSync("a/b/c", { recursive: true });
fs.symlinkSync("note.txt", "link");
console.log(fs.readFileSync("link", "utf8"), fs.statSync("note.txt").size, fs.statSync("a").mode.toString(8), fs.readdirSync(".").sort());
try { fs.readFileSync("missing"); } catch (error) { console.log(error.code, error.syscall, error.message); }
(async () => {
  console.log(await fs.promises.readFile("note.txt"));
  for await (const data of fs.createReadStream("note.txt", { start: 3, encoding: "utf8" })) console.log(JSON.stringify(data));
  fs.readFile("note.txt", "utf8", (error, text) => {
    process.chdir("/tmp");
    console.log(error, text.length, process.cwd(), fs.mkdtempSync("x-").length, fs.existsSync("note.txt"));
  });
})();
