// corpus: stdin = { base64 = "AAEC//4KgAANCg==" }
console.log(process.stdin.fd, process.stdin.isTTY, process.stdin.constructor.name, process.stdin.readableFlowing, process.stdin.readableEncoding);
const chunks = [];
process.stdin.on("data", (chunk) => chunks.push(chunk));
process.stdin.on("end", () => console.log("end", Buffer.concat(chunks)));
process.stdin.on("close", () => console.log("close"));
