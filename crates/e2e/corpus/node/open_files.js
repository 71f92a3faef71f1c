// Descriptors 0 to 2; the runtime's other descriptors are of known kinds.
const fs = require("fs");
const kind = (name) => { try { return fs.readlinkSync("/proc/self/fd/" + name).replace(/\d+/g, "N"); } catch { return "gone"; } };
for (const name of fs.readdirSync("/proc/self/fd").sort((a, b) => a - b)) console.log(name, kind(name));
console.log(fs.openSync("/dev/null"));
