{
// Another process of the same runtime, without the hook.
const { spawnSync } = require("child_process");
const code = "console.log(process.argv.length, process.execArgv, process.env.NODE_OPTIONS, Object.keys(require.cache), require('fs').readdirSync('.'))";
const child = spawnSync(process.execPath, ["-e", code], { encoding: "utf8" });
console.log(child.status, child.stdout, child.stderr);
}

{
// corpus: stdin = "for the child"
const { spawnSync, execFileSync, execSync, spawn, exec } = require("child_process");
const run = spawnSync("sh", ["-c", "echo out; echo err >&2; exit 3"], { encoding: "utf8" });
console.log(run.status, run.signal, run.stdout, run.stderr);
console.log(spawnSync("sh", ["-c", "kill -TERM $$"]).signal, spawnSync("no-such-program").error.code);
console.log(execFileSync("cat", { stdio: [0, "pipe", 2], encoding: "utf8" }), execSync("echo shell $0", { encoding: "utf8" }));
try { execSync("exit 4"); } catch (error) { console.log(error.status, error.message); }
const child = spawn("tr", ["a-z", "A-Z"]);
child.stdout.on("data", (data) => console.log("child says", data.toString()));
child.on("close", (code, signal) => {
  console.log("close", code, signal);
  exec("echo a; exit 2", (error, stdout) => console.log(error.code, stdout));
});
child.stdin.end("loud");
}
