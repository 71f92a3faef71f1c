// child_process.fork of the program's file, with an IPC channel.
const { fork } = require("child_process");
if (process.argv[2] === "child") {
  console.log("child", process.connected, process.argv.slice(1), process.execArgv, require.main === module);
  process.on("message", (message) => { process.send({ doubled: message.value * 2 }); process.disconnect(); });
} else {
  console.log("parent", process.send, process.channel, process.connected);
  const child = fork(__filename, ["child"]);
  child.on("message", (message) => console.log("answer", message));
  child.on("exit", (code) => console.log("exit", code));
  child.send({ value: 21 });
}
