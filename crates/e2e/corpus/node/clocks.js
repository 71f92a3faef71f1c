{
const { performance } = require("perf_hooks");
console.log(performance.now() > 0, performance.now() <= performance.now(), process.hrtime.bigint() > 0n);
console.log(Math.abs(performance.timeOrigin + performance.now() - Date.now()) < 2000);
console.log(process.uptime() > 0, process.uptime() < 60, performance.now() < 60000, new Date().getFullYear() >= 2024);
const before = Date.now();
setTimeout(() => console.log(Date.now() - before >= 19, Date.now() - before < 20000), 20);
}

{
const usage = process.resourceUsage();
console.log(usage.maxRSS > 1000, usage.userCPUTime > 0, process.cpuUsage().user < 60e6);
const memory = process.memoryUsage();
console.log(memory.rss > memory.heapUsed, memory.heapTotal > 0, require("v8").getHeapStatistics().heap_size_limit > 1e8, process.constrainedMemory !== null);
}
