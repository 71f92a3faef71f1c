const { pipeline, Readable, Transform } = require("stream");
const zlib = require("zlib");
const upper = new Transform({ transform(chunk, _, done) { done(null, chunk.toString().toUpperCase()); } });
const collected = [];
pipeline(Readable.from(["a", "b", "c"]), upper, zlib.createGzip(), zlib.createGunzip(), async function* (source) { for await (const chunk of source) collected.push(chunk.toString()); }, (error) => console.log(error, collected.join("")));
pipeline(Readable.from(["x"]), new Transform({ transform(chunk, _, done) { done(new Error("in a stream")); } }), (error) => console.log(error.message));
