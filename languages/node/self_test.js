const fs = require("fs");

const numbers = fs.readFileSync(0, "utf8").trim().split("\n").map(Number);
console.log("sum of stdin:", numbers.reduce((sum, number) => sum + number, 0));
console.log("args:", process.argv.slice(2).join(", "));
fs.writeFileSync("note.txt", "written by Node.js\n");
console.log("file:", fs.readFileSync("note.txt", "utf8").trim());
console.error("this line is not part of it");
process.exitCode = 5;
