// piston_clients.mjs URL PROGRAMS FOLDER: piston-api-client and piston-client of FOLDER/node_modules against a server,
// each call with its answer. PROGRAMS names a table of piston_programs.json.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const [server, table, folder] = process.argv.slice(2);
const programs = JSON.parse(readFileSync(new URL("piston_programs.json", import.meta.url), "utf8"))[table];
const require = createRequire(`${folder}/package.json`);
const { NodePistonClient, PistonClient } = require("piston-api-client");
const { default: piston } = await import(`${folder}/node_modules/piston-client/index.js`);

const PATIENCE_MS = 60_000;
// Code, signal, and output of both streams; null: only that there is some.
const expected = {
    hello: [0, null, "hello"],
    echo: [0, null, "in a b"],
    exit: [3, null, "bye\n"],
    signal: [null, "SIGSEGV", ""],
    forever: [null, "SIGKILL", ""],
    compiled: [0, null, "hello"],
    uncompilable: [1, null, null],
};
const unknown = { message: "cow-* runtime is unknown" };

function check(client, call, found, wanted) {
    console.log(`${client}: ${call} -> ${JSON.stringify(found)}`);
    assert.deepEqual(found, wanted, `${client}: ${call}`);
}

function checkRuntimes(client, runtimes) {
    const javascript = runtimes.find((runtime) => runtime.language === "javascript");
    check(client, "runtimes, javascript", [javascript.runtime, javascript.aliases.includes("js")], ["node", true]);
    assert.match(javascript.version, /^\d+\.\d+\.\d+$/);
}

function checkAnswer(client, name, answer) {
    const [code, signal, output] = expected[name];
    const found = [answer.run?.code, answer.run?.signal, output === null ? null : answer.run?.output];
    check(client, `execute ${name}`, found, [code, signal, output]);
    assert.notEqual(output === null && answer.run.output, "");
    check(client, `execute ${name}, compile stage`, "compile" in answer, programs[name].language === "c");
}

for (const Client of [PistonClient, NodePistonClient]) {
    const name = `piston-api-client ${Client.name}`;
    const client = new Client({ server, cacheTime: 1 });
    const runtimes = await client.runtimes();
    assert.ok(runtimes.success, String(runtimes.error));
    checkRuntimes(name, runtimes.data);
    for (const program of Object.keys(expected)) {
        const answer = await client.execute({
            language: programs[program].language,
            version: "*",
            files: [{ content: programs[program].code }],
            stdin: "in",
            args: ["a", "b"],
            run_timeout: program === "forever" ? 1000 : PATIENCE_MS,
            compile_timeout: PATIENCE_MS,
        });
        assert.ok(answer.success, String(answer.error));
        checkAnswer(name, program, answer.data);
    }
    const cow = await client.execute({ language: "cow", version: "*", files: [{ content: "moo" }] });
    check(name, "execute cow", cow.data, unknown);
}

const name = "piston-client";
const client = piston({ server });
checkRuntimes(name, await client.runtimes());
const hello = await client.execute("python", programs.hello.code, { runTimeout: PATIENCE_MS });
checkAnswer(name, "hello", hello);
for (const program of Object.keys(expected)) {
    const answer = await client.execute({
        language: programs[program].language,
        version: "*",
        files: [{ name: "", content: programs[program].code }],
        stdin: "in",
        args: ["a", "b"],
        runTimeout: program === "forever" ? 1000 : PATIENCE_MS,
        compileTimeout: PATIENCE_MS,
    });
    checkAnswer(name, program, answer);
}
const cow = await client.execute({ language: "cow", version: "*", files: [{ content: "moo" }] });
check(name, "execute cow", cow, unknown);
