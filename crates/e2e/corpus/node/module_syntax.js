// A file with the syntax of a module is run as one.
// corpus: args = ["one", "two words"]
// corpus: files = { "part.mjs" = "export default 7;" }
import { readFile } from "node:fs/promises";
import part from "./part.mjs";

const text = await readFile(new URL(import.meta.url), "utf8");
console.log(text.length > 0, part, typeof require, typeof module, process.argv, import.meta.url);
export const answer = 42;
