// corpus: cause = "wall_time"
// corpus: limits = { wall_time_ms = 10000 }
console.log("before");
setInterval(() => {}, 1000);
