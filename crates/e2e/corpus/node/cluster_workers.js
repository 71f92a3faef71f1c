const cluster = require("cluster");
if (cluster.isPrimary) {
  console.log("primary", cluster.isWorker, Object.keys(cluster.workers).length);
  const worker = cluster.fork();
  worker.on("message", (message) => console.log("from worker", worker.id, message));
  cluster.on("exit", (worker, code, signal) => console.log("worker", worker.id, "exit", code, signal));
} else {
  process.send("hello", () => process.exit(5));
}
