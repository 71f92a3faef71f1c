const { Worker, isMainThread, parentPort, workerData, threadId } = require("worker_threads");
if (isMainThread) {
  console.log("main", threadId, parentPort, workerData);
  const shared = new Int32Array(new SharedArrayBuffer(4));
  const worker = new Worker(__filename, { workerData: { shared, text: "given" }, argv: ["extra"] });
  worker.on("message", (message) => console.log("message", message));
  worker.on("exit", (code) => console.log("exit", code, Atomics.load(shared, 0)));
} else {
  Atomics.add(workerData.shared, 0, 41);
  parentPort.postMessage([threadId, workerData.text, process.argv.slice(2), require.main === module, __filename]);
  process.exit(6);
}
