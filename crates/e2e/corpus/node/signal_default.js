// corpus: signal = 15
console.log("before");
process.kill(process.pid, "SIGTERM");
setTimeout(() => console.log("never"), 20000);
