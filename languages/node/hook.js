// A program's worker threads load this file, too, and must not wait.
if (require("worker_threads").isMainThread) {
  const fs = require("fs");
  const v8 = require("v8");
  const { performance, Performance } = require("perf_hooks");

  const control = 63;
  fs.writeSync(control, "w");
  const pieces = [];
  const piece = Buffer.alloc(65536);
  for (let length; (length = fs.readSync(control, piece)) > 0; ) {
    pieces.push(Buffer.from(piece.subarray(0, length)));
  }
  fs.closeSync(control);
  const fields = Buffer.concat(pieces).toString().split("\0").slice(0, -1);
  if (fields.length < 2) process.reallyExit(127); // The agent closed the socket without a program.
  const [directory, count] = fields;
  const environment = 2 + Number(count);
  process.chdir(directory);
  for (const argument of fields.slice(2, environment)) process.argv.push(argument);
  // Cleared first, so that the variables have the order of a cold start.
  for (const name of Object.keys(process.env)) delete process.env[name];
  for (const field of fields.slice(environment)) {
    const at = field.indexOf("=");
    process.env[field.slice(0, at)] = field.slice(at + 1);
  }

  // V8 seeds Math.random at its first use. Without --random-seed the seed comes from a state that all forks share.
  // The flag is reset after the first use, or all worker threads would get the same seed.
  const random = fs.openSync("/dev/urandom");
  const seed = Buffer.alloc(4);
  fs.readSync(random, seed);
  fs.closeSync(random);
  v8.setFlagsFromString(`--random-seed=${seed.readUInt32LE() >>> 1 || 1}`);
  Math.random();
  v8.setFlagsFromString("--random-seed=0");

  // performance.timeOrigin has the template's wall clock. Node.js 18 has a setter for it, later versions only a getter.
  const timeOrigin = Date.now() - performance.now();
  const property = Object.getOwnPropertyDescriptor(Performance.prototype, "timeOrigin");
  if (property?.set) {
    performance.timeOrigin = timeOrigin;
  } else if (property?.get) {
    const { get } = Object.getOwnPropertyDescriptor({ get timeOrigin() { return timeOrigin; } }, "timeOrigin");
    Object.defineProperty(Performance.prototype, "timeOrigin", { ...property, get });
  }
}
{
  const { _pathCache: paths } = module.constructor;
  const ours = `${__dirname}/`;
  for (const key of Object.keys(paths)) if (paths[key].startsWith(ours)) delete paths[key];
  for (const key of Object.keys(require.cache)) if (key.startsWith(ours)) delete require.cache[key];
}
