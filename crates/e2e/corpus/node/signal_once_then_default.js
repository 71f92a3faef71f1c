// corpus: signal = 12
process.once("SIGUSR2", () => {
  console.log("handled once");
  process.kill(process.pid, "SIGUSR2");
});
process.kill(process.pid, "SIGUSR2");
setTimeout(() => console.log("never"), 20000);
