{
// corpus: env = { GIVEN = "a value", UNICODE = "é", EMPTY = "" }
for (const name of Object.keys(process.env).sort()) console.log(`${name}=${JSON.stringify(process.env[name])}`);
process.env.NUMBER = 5;
delete process.env.GIVEN;
console.log(process.env.NUMBER, "GIVEN" in process.env, process.env.NODE_OPTIONS, Object.keys(process.env).length);
}

{
const { execFileSync } = require("child_process");
process.env.SET = "here";
console.log(execFileSync("env", { encoding: "utf8" }).trim().split("\n").sort());
}
