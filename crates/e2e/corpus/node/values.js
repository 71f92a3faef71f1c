{
console.log(Buffer.from("é漢😀"), Buffer.from("ff00", "hex"), Buffer.alloc(3), Buffer.from("aGk=", "base64").toString());
console.log(Buffer.concat([Buffer.from("a"), Buffer.from("b")]).equals(Buffer.from("ab")), Buffer.poolSize, Buffer.byteLength("é"));
console.log(Buffer.allocUnsafe(10).length, new Uint8Array(4), Buffer.from([1, 2, 3]).readUInt16BE(1), require("buffer").constants.MAX_LENGTH > 1e9);
process.stdout.write(Buffer.from([0xff, 0xfe, 0x0a]));
console.log(new TextDecoder().decode(new Uint8Array([0xff, 0x61])), btoa("hi"), structuredClone({ date: new Date(0), set: new Set([1]) }));
}

{
const crypto = require("crypto");
console.log(crypto.createHash("sha256").update("x").digest("hex"), crypto.createHmac("sha1", "k").update("x").digest("base64"));
const random = new Set([crypto.randomBytes(8).toString("hex"), crypto.randomBytes(8).toString("hex"), crypto.randomUUID(), crypto.randomUUID(), String(Math.random()), String(Math.random()), String(crypto.randomInt(2 ** 40)), crypto.webcrypto.getRandomValues(new Uint32Array(2)).join()]);
console.log(random.size, crypto.getHashes().length > 10, crypto.getFips());
console.log(crypto.generateKeyPairSync("ed25519").publicKey.type, crypto.scryptSync("p", "s", 8).toString("hex"));
}
