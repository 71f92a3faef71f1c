// corpus: stdin = "headrest of it\n"
const fs = require("fs");
const { spawnSync } = require("child_process");
const head = Buffer.alloc(4);
console.log(fs.readSync(0, head), head.toString());
console.log(spawnSync("cat", { stdio: ["inherit", "pipe", "inherit"], encoding: "utf8" }).stdout);
