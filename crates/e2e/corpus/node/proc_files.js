{
// /proc/self/cmdline, as ps shows it. Arguments of the program are not in it after a takeover (docs/warm.md): it has none.
const fs = require("fs");
console.log(fs.readFileSync("/proc/self/cmdline", "utf8").split("\0"));
console.log(fs.readFileSync("/proc/self/comm", "utf8").trim());
}

{
// The environment that the kernel knows the process by: what every program of the language is given. After a
// takeover the request's own variables are not in it, and one of the hook's is (docs/warm.md).
// corpus: env = { GIVEN = "value" }
const fs = require("fs");
const others = /^(NODE_OPTIONS|GIVEN)=/;
console.log(fs.readFileSync("/proc/self/environ", "utf8").split("\0").filter((entry) => !others.test(entry)).sort());
// A child has all of it.
console.log(require("child_process").execSync("tr '\\0' '\\n' < /proc/self/environ", { encoding: "utf8" }));
}
