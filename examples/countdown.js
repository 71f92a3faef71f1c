// Output arrives as it is written: cloude run examples/countdown.js -- 3
let left = Number(process.argv[2] ?? 3);
const timer = setInterval(() => {
  console.log(left > 0 ? left : "lift-off");
  if (left-- <= 0) clearInterval(timer);
}, 1000);
