{
// What ps would show.
// corpus: args = ["one", "two words"]
const fs = require("fs");
console.log(fs.readFileSync("/proc/self/cmdline", "utf8").split("\0"));
console.log(fs.readFileSync("/proc/self/comm", "utf8").trim());
}

{
// The environment that the kernel knows the process by.
// corpus: env = { GIVEN = "value" }
const fs = require("fs");
console.log(fs.readFileSync("/proc/self/environ", "utf8").split("\0").sort());
}
