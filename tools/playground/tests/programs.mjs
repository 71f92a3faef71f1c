// The programs of the cases, for a server that runs them and for the fake VMs of the backend's tests, where the first word
// selects a behaviour. Both kinds have the same outcome.

const real = {
    hello: { language: "python", code: "print('hello')" },
    // Prints, and then waits to be stopped.
    hold: { language: "python", code: "import time\nprint('held', flush=True)\ntime.sleep(600)\n" },
    failed: { language: "python", code: "import sys\nprint('bye', file=sys.stderr)\nsys.exit(3)\n" },
    uncompilable: { language: "c", code: "int main( {\n" },
    echo: { language: "python", code: "import sys\nprint(sys.stdin.read(), sys.argv)\n" },
    flood: { language: "python", code: "for _ in range(64): print('x' * 32767)\n" },
    hostile: { language: "python", code: "print(HOSTILE)" },
    picture: {
        language: "python",
        code: `import struct, zlib

def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

SIZE = 320
rows = bytearray()
for y in range(SIZE):
    rows.append(0)
    for x in range(SIZE):
        rows += bytes([(x * y) >> 9 & 255, x * 255 // SIZE, 255 - y * 255 // SIZE])
with open("one.png", "wb") as file:
    header = struct.pack(">IIBBBBB", SIZE, SIZE, 8, 2, 0, 0, 0)
    file.write(b"\\x89PNG\\r\\n\\x1a\\n" + chunk(b"IHDR", header))
    file.write(chunk(b"IDAT", zlib.compress(bytes(rows))) + chunk(b"IEND", b""))
with open("one.txt", "w") as file:
    file.write("text")
print("drawn")
`,
    },
};

const fake = {
    hello: { language: "python", code: "print hello" },
    hold: { language: "python", code: "hold" },
    failed: { language: "python", code: "exit 3" },
    uncompilable: { language: "c", code: "uncompilable" },
    echo: { language: "python", code: "received" },
    flood: { language: "python", code: "flood" },
    hostile: { language: "python", code: "print HOSTILE" },
    picture: { language: "python", code: "picture" },
};

export const isFake = process.env.CLOUDE_TEST_PROGRAMS === "fake";

export const programs = isFake ? fake : real;

/** A program that prints this text. */
export function printing(text) {
    const { language, code } = programs.hostile;
    return { language, code: code.replace("HOSTILE", () => (isFake ? text : JSON.stringify(text))) };
}
