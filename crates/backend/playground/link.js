// Links that carry a program in their fragment, which browsers do not send to servers: `#1.` and the deflated JSON in
// base64url.

import { checked } from "./program.js";

const VERSION = "#1.";
/** A link that unpacks to more than this is refused. */
const MAX_BYTES = 4 * 1024 * 1024;

async function collect(stream, limit) {
    const parts = [];
    let bytes = 0;
    for (const reader = stream.getReader(); ; ) {
        const { done, value } = await reader.read();
        if (done) return new Blob(parts).arrayBuffer();
        bytes += value.length;
        if (bytes > limit) {
            await reader.cancel();
            throw new RangeError("it is too large");
        }
        parts.push(value);
    }
}

/** The fragment with a program. */
export async function encode(program) {
    const text = new Blob([JSON.stringify(program)]);
    const packed = await collect(text.stream().pipeThrough(new CompressionStream("deflate-raw")), Infinity);
    let letters = "";
    for (const byte of new Uint8Array(packed)) letters += String.fromCharCode(byte);
    return VERSION + btoa(letters).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}

/** The program of a fragment. Throws if it has none. */
export async function decode(fragment) {
    if (!fragment.startsWith(VERSION)) throw new Error("it is of an unknown version");
    const letters = atob(fragment.slice(VERSION.length).replaceAll("-", "+").replaceAll("_", "/"));
    const packed = new Blob([Uint8Array.from(letters, (letter) => letter.charCodeAt(0))]);
    const text = await collect(packed.stream().pipeThrough(new DecompressionStream("deflate-raw")), MAX_BYTES);
    const program = checked(JSON.parse(new TextDecoder().decode(text)));
    if (!program) throw new Error("it has no program");
    return program;
}
