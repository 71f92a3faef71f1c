import { readFileSync, writeFileSync, writeSync } from "fs";

interface Note {
    author: string;
}

const numbers: number[] = readFileSync(0, "utf8").trim().split("\n").map(Number);
const note: Note = { author: "TypeScript" };

console.log(`sum of stdin: ${numbers.reduce((total, number) => total + number, 0)}`);
console.log(`args: ${process.argv.slice(2).join(", ")}`);
writeFileSync("note.txt", `written by ${note.author}\n`);
console.log(`file: ${readFileSync("note.txt", "utf8").trim()}`);
writeSync(2, "this line is not part of it\n");
process.exitCode = 16;
