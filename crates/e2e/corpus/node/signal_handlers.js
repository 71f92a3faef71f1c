const seen = [];
const wait = setInterval(() => {}, 1000);
for (const name of ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR2"]) {
  process.on(name, (signal, number) => {
    seen.push(`${signal} ${number}`);
    if (seen.length === 4) {
      clearInterval(wait);
      console.log(seen.sort());
    }
  });
  process.kill(process.pid, name);
}
