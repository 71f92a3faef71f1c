process.stdin.on("data", () => console.log("data"));
process.stdin.on("end", () => console.log("end"));
console.log(require("fs").fstatSync(0).size);
