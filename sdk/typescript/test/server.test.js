// The client against a server: `tools/tests/sdk server`, or CLOUDE_TEST_BACKEND with its URL.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { test as always } from "node:test";
import { promisify } from "node:util";

import ts from "typescript";

import { Client } from "cloude";

import { collect } from "./support.js";

const url = process.env.CLOUDE_TEST_BACKEND ?? "";
const skip = url === "" && "there is no server: tools/tests/sdk server starts one";
const client = new Client({ url });

/**
 * @param {string} name
 * @param {(context: import("node:test").TestContext) => Promise<void>} body
 */
const test = (name, body) => always(name, { skip }, body);

test("a program gets its input and its end is told", async () => {
  const code = `
import os, pathlib, sys
print(input(), sys.argv[1:], os.environ["X"], os.environ["S"], pathlib.Path("data/in.bin").read_bytes())
print("oops", file=sys.stderr)
sys.exit(3)
`;
  const files = { "data/in.bin": Uint8Array.of(0xff) };
  const options = { stdin: "hello\n", args: ["a"], env: { X: "1" }, secrets: { S: "2" }, files };
  const result = await client.run("python", code, options);
  assert.equal(result.stdout, "hello ['a'] 1 2 b'\\xff'\n");
  assert.equal(result.stderr, "oops\n");
  assert.deepEqual([result.status, result.cause, result.exit_code, result.signal], ["done", "exit", 3, null]);
});

test("output that is no text is exact", async () => {
  const result = await client.run("python", "import sys; sys.stdout.buffer.write(b'\\xff\\x00a')");
  assert.deepEqual(result.stdout_bytes, Uint8Array.of(0xff, 0, 97));
});

test("artifacts come back", async () => {
  const code = "import os; os.mkdir('out'); open('out/a b.bin', 'wb').write(b'\\xff' * 3); open('no.log', 'w')";
  const result = await client.run("python", code, { artifacts: ["out/*"] });
  assert.deepEqual(result.artifacts?.map(({ path, bytes }) => [path, bytes]), [["out/a b.bin", 3]]);
  assert.deepEqual(await client.artifacts(result.id), result.artifacts);
  assert.deepEqual(await client.artifact(result.id, "out/a b.bin"), Uint8Array.of(255, 255, 255));
  await assert.rejects(client.artifact(result.id, "no.log"), { name: "NotFound" });
});

test("a stream ends with the result", async () => {
  const code = "import sys; print('out'); sys.stdout.flush(); print('err', file=sys.stderr); sys.exit(5)";
  const events = await collect(client.stream("python", code));
  const texts = { stdout: "", stderr: "" };
  for (const event of events) {
    if (event.event === "output") texts[event.stream] += event.text;
  }
  assert.deepEqual(texts, { stdout: "out\n", stderr: "err\n" });
  const last = events.at(-1);
  assert.ok(last?.event === "result" && last.execution.exit_code === 5);
});

test("leaving a stream cancels the execution", async () => {
  let id = "";
  for await (const event of client.stream("python", "print('on', flush=True)\nwhile True: pass")) {
    if (event.event === "accepted") id = event.id;
    if (event.event === "output") break;
  }
  assert.equal((await client.job(id).wait()).cause, "cancelled");
});

test("an abort cancels the execution that is waited for", async () => {
  const abort = new AbortController();
  const labels = { test: randomUUID() };
  const run = client.run("python", "while True: pass", { labels, signal: abort.signal });
  /** @type {string | undefined} */
  let id;
  while (id === undefined) id = (await collect(client.executions({ labels })))[0]?.id;
  abort.abort(new Error("enough"));
  await assert.rejects(run, { message: "enough" });
  assert.equal((await client.job(id).wait()).cause, "cancelled");
});

test("a job is waited for, listed and read", async () => {
  const labels = { test: randomUUID() };
  const job = await client.submit("python", "print('0123456789')", { labels });
  const result = await job.wait();
  assert.deepEqual([result.id, result.stdout, result.labels], [job.id, "0123456789\n", labels]);
  assert.equal((await job.status()).status, "done");
  assert.equal(new TextDecoder().decode(await client.output(job.id, "stdout", { start: 4 })), "456789\n");
  const other = await client.submit("python", "1", { labels });
  await other.wait();
  const found = await collect(client.executions({ labels, pageSize: 1 }));
  assert.deepEqual(found.map(({ id }) => id), [other.id, job.id]);
  const again = await collect(job.events());
  assert.equal(again.map((event) => (event.event === "output" ? event.text : "")).join(""), "0123456789\n");
});

test("a job can be cancelled", async () => {
  const job = await client.submit("python", "while True: pass");
  assert.equal((await job.cancel()).cause, "cancelled");
});

test("one key is one execution", async () => {
  const idempotencyKey = randomUUID();
  const first = await client.run("python", "print(1)", { idempotencyKey });
  assert.equal((await client.run("python", "print(1)", { idempotencyKey })).id, first.id);
  await assert.rejects(client.run("python", "print(2)", { idempotencyKey }), { name: "IdempotencyConflict" });
});

test("refusals name the field", async () => {
  await assert.rejects(client.run("klingon", "1"), { name: "BadRequest", field: "language" });
  const limits = { memory_bytes: 2 ** 50 };
  await assert.rejects(client.run("python", "1", { limits }), { name: "BadRequest", field: "limits.memory_bytes" });
  await assert.rejects(client.job(randomUUID()).status(), { name: "NotFound" });
});

test("languages and usage are listed", async () => {
  assert.ok((await client.languages()).some(({ name }) => name === "python"));
  await client.run("python", "1");
  assert.ok((await client.usage()).some(({ executions }) => executions > 0));
});

test("the types have the fields of the API", async (context) => {
  const response = await fetch(`${url}/openapi.json`);
  if (response.status === 404) return context.skip("this server has no /openapi.json");
  const { schemas } = (await response.json()).components;
  const path = new URL("../src/types.ts", import.meta.url);
  const source = ts.createSourceFile("types.ts", readFileSync(path, "utf8"), ts.ScriptTarget.Latest);
  /** @type {Map<string, Set<string>>} */
  const ours = new Map();
  for (const statement of source.statements.filter(ts.isInterfaceDeclaration)) {
    const parents = (statement.heritageClauses ?? []).flatMap(({ types }) => types.map((type) => type.getText(source)));
    const inherited = parents.flatMap((parent) => [...(ours.get(parent) ?? [])]);
    const own = statement.members.map((member) => member.name?.getText(source) ?? "");
    ours.set(statement.name.text, new Set([...inherited, ...own]));
  }
  const names = ["Artifact", "CompileLimits", "CompileReport", "Denied", "Execution", "ExecutionList", "ExecutionSummary"];
  names.push("LanguageInfo", "Limits", "NetworkReport", "StageResult", "Timings", "Usage");
  for (const name of names) {
    const theirs = Object.keys(schemas[name].properties);
    if (ours.get(name)?.has("stdout")) theirs.push("stdout_bytes", "stderr_bytes");
    assert.deepEqual([...(ours.get(name) ?? [])].sort(), theirs.sort(), name);
  }
  const options = [...(ours.get("SubmitOptions") ?? []), "language", "code"];
  assert.deepEqual(options.sort(), Object.keys(schemas.ExecutionRequest.properties).sort());
});

test("the first example of the README prints what it says", async () => {
  const root = new URL("..", import.meta.url);
  const readme = readFileSync(new URL("README.md", root), "utf8");
  const [, code, wanted] = readme.match(/```js\n(.*?)```\n\n```text\n(.*?)```/s) ?? [];
  const environment = { ...process.env, CLOUDE_BACKEND: url };
  const run = promisify(execFile)(process.execPath, ["--input-type=module", "--eval", code], { cwd: root, env: environment });
  assert.deepEqual(await run, { stdout: wanted, stderr: "" });
});
