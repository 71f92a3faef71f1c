// SIGPIPE is ignored: writing to a closed pipe is an EPIPE error.
const { spawn } = require("child_process");
const child = spawn("sh", ["-c", "exec <&-; echo closed; sleep 1"]);
child.stdin.on("error", (error) => console.log(error.code));
child.stdout.once("data", () => child.stdin.write("x".repeat(1000000)));
