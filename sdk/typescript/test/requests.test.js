// The requests that the client sends, and the responses that it reads.

import assert from "node:assert/strict";
import { test } from "node:test";

import * as cloude from "cloude";

import { refusal } from "../dist/errors.js";
import { collect, execution, problem, scripted, summary } from "./support.js";

const { Client } = cloude;

test("run sends every option under its name", () =>
  scripted([{ body: execution() }], async ({ url, requests }) => {
    const result = await new Client({ url }).run("python", "print(6 * 7)", {
      files: { "a.txt": "text", "b.bin": Uint8Array.of(0xff) },
      stdin: new TextEncoder().encode("in"),
      args: ["a", "b"],
      env: { X: "1" },
      limits: { wall_time_ms: 1000, compile: { processes: 4 } },
      network: false,
    });
    assert.equal(result.stdout, "42\n");
    assert.equal(requests[0].method, "POST");
    assert.equal(requests[0].path, "/v1/executions");
    assert.deepEqual(JSON.parse(requests[0].body), {
      language: "python",
      code: "print(6 * 7)",
      files: [
        { path: "a.txt", content: "text" },
        { path: "b.bin", content: { base64: "/w==" } },
      ],
      stdin: "in",
      args: ["a", "b"],
      env: { X: "1" },
      limits: { wall_time_ms: 1000, compile: { processes: 4 } },
      network: false,
    });
  }));

test("an abort cancels the execution that is waited for", () => {
  const replies = [{ waits: true, body: execution() }, { status: 202, body: summary("e7") }, { body: execution() }];
  return scripted(replies, async ({ url, requests }) => {
    const abort = new AbortController();
    const run = new Client({ url }).run("python", "1", { signal: abort.signal });
    while (requests.length === 0) await new Promise(setImmediate);
    abort.abort(new Error("enough"));
    await assert.rejects(run, { message: "enough" });
    const [first, again, cancel] = requests;
    assert.equal(again.headers["idempotency-key"], first.headers["idempotency-key"]);
    assert.equal(again.body, first.body);
    assert.equal(again.headers.prefer, "respond-async");
    assert.equal(`${cancel.method} ${cancel.path}`, "DELETE /v1/executions/e7");
  });
});

test("files may have modes", () =>
  scripted([{ body: execution() }], async ({ url, requests }) => {
    const files = [{ path: "run.sh", content: "true", mode: 0o755 }];
    await new Client({ url }).run("bash", "", { files, entrypoint: "run.sh" });
    assert.deepEqual(JSON.parse(requests[0].body), { language: "bash", files, entrypoint: "run.sh" });
  }));

test("output is text and exact bytes", () => {
  const stdout = { base64: Buffer.from([0xff, 0, 97]).toString("base64") };
  return scripted([{ body: execution({ stdout, stderr: "é" }) }], async ({ url }) => {
    const result = await new Client({ url }).run("c", "…");
    assert.deepEqual(result.stdout_bytes, Uint8Array.of(0xff, 0, 97));
    assert.equal(result.stdout, "\ufffd\0a");
    assert.equal(result.stderr, "é");
    assert.deepEqual(result.stderr_bytes, new TextEncoder().encode("é"));
    assert.equal(result.run?.stdout_bytes, 3);
    assert.ok(!JSON.stringify(result).includes("base64"));
  });
});

test("a large binary file survives", () => {
  const content = Uint8Array.from({ length: 100_000 }, (_, index) => index % 256);
  return scripted([{ body: execution() }], async ({ url, requests }) => {
    await new Client({ url }).run("c", "…", { files: { x: content } });
    const { base64 } = JSON.parse(requests[0].body).files[0].content;
    assert.deepEqual(new Uint8Array(Buffer.from(base64, "base64")), content);
  });
});

test("a response of another server is an error", () =>
  scripted([{ body: "<html>" }, { body: { id: "e1" } }], async ({ url }) => {
    const client = new Client({ url });
    await assert.rejects(client.run("python", "1"), { name: "ProtocolError", message: /answered no JSON/ });
    await assert.rejects(client.run("python", "1"), { name: "ProtocolError", message: /lacks status/ });
  }));

/** @type {[number, typeof cloude.ApiError][]} */
const KINDS = [
  [302, cloude.ApiError],
  [400, cloude.BadRequest],
  [401, cloude.Unauthorized],
  [403, cloude.Forbidden],
  [404, cloude.NotFound],
  [409, cloude.Conflict],
  [413, cloude.TooLarge],
  [422, cloude.IdempotencyConflict],
  [429, cloude.TooManyRequests],
  [500, cloude.ServerError],
  [503, cloude.Unavailable],
];

for (const [status, Kind] of KINDS) {
  test(`the refusal ${status} is ${Kind.name}`, () => {
    const reply = problem(status, { type: "/problems/x", title: "a kind", detail: "too much", field: "limits.vcpus" });
    return scripted([reply], async ({ url }) => {
      const error = await new Client({ url, maxRetries: 0 }).run("python", "1").catch((error) => error);
      assert.equal(error.constructor, Kind);
      assert.ok(error instanceof cloude.ApiError);
      assert.equal(error.message, `${status}: limits.vcpus: too much`);
      const { detail, field, type, title } = error;
      assert.deepEqual([detail, field, type, title], ["too much", "limits.vcpus", "/problems/x", "a kind"]);
    });
  });
}

test("the kinds of 429 are told apart", () => {
  for (const [type, Kind] of /** @type {const} */ ([["quota", cloude.QuotaExceeded], ["queue-full", cloude.QueueFull]])) {
    const error = refusal(429, JSON.stringify({ type: `/problems/${type}`, detail: "…" }), 3);
    assert.ok(error instanceof Kind && error instanceof cloude.TooManyRequests);
    assert.equal(error.retryAfterS, 3);
  }
});

test("refusals of proxies and old endpoints are readable", () => {
  assert.equal(refusal(502, "Bad Gateway\n", undefined).detail, "Bad Gateway");
  assert.equal(refusal(400, '{"error": "why"}', undefined).detail, "why");
  assert.equal(refusal(500, "", undefined).detail, "no reason was given");
  assert.equal(refusal(500, "null", undefined).detail, "null");
});

test("a job waits until the result is there", () => {
  const running = { status: 202, body: summary("e1", { status: "running" }) };
  return scripted([{ status: 202, body: summary() }, running, running, { body: execution() }], async (server) => {
    const job = await new Client({ url: server.url }).submit("python", "1", { callback_url: "https://example.com/x" });
    assert.equal((await job.status()).status, "running");
    assert.equal((await job.wait()).stdout, "42\n");
    const [post, ...gets] = server.requests;
    assert.equal(post.headers.prefer, "respond-async");
    assert.equal(JSON.parse(post.body).callback_url, "https://example.com/x");
    const wait = "/v1/executions/e1?wait=30s";
    assert.deepEqual(gets.map((request) => request.path), ["/v1/executions/e1", wait, wait]);
  });
});

test("a wait gives up after its time-out", () =>
  scripted([{ status: 202, body: summary() }], async ({ url, requests }) => {
    const wait = new Client({ url }).job("e1").wait({ timeoutMs: 0 });
    await assert.rejects(wait, { name: "WaitTimeout", message: /has not ended within 0 ms/ });
    assert.equal(requests[0].path, "/v1/executions/e1?wait=0s");
  }));

test("cancel returns the result", () =>
  scripted([{ body: execution({ status: "error", cause: "cancelled" }) }], async ({ url, requests }) => {
    assert.equal((await new Client({ url }).job("e1").cancel()).cause, "cancelled");
    assert.equal(requests[0].method, "DELETE");
  }));

test("a list continues over its pages", () => {
  const pages = [
    { body: { executions: [summary("a"), summary("b")], next_cursor: "x/y" } },
    { body: { executions: [summary("c")] } },
  ];
  return scripted(pages, async ({ url, requests }) => {
    const filters = { status: /** @type {const} */ ("done"), labels: { run: "7" }, pageSize: 2 };
    const found = await collect(new Client({ url }).executions(filters));
    assert.deepEqual(found.map((item) => item.id), ["a", "b", "c"]);
    assert.equal(requests[0].path, "/v1/executions?limit=2&status=done&label=run%3A7");
    assert.equal(requests[1].path, "/v1/executions?limit=2&status=done&label=run%3A7&cursor=x%2Fy");
  });
});

test("paths of artifacts are escaped", () =>
  scripted([{ body: Uint8Array.of(0, 255) }, { status: 206, body: "tail" }], async ({ url, requests }) => {
    const client = new Client({ url });
    assert.deepEqual(await client.artifact("e1", "out/a b?#%.bin"), Uint8Array.of(0, 255));
    assert.equal(new TextDecoder().decode(await client.output("e1", "stderr", { start: 4 })), "tail");
    assert.equal(requests[0].path, "/v1/executions/e1/artifacts/out/a%20b%3F%23%25.bin");
    assert.equal(requests[1].path, "/v1/executions/e1/stderr?stage=run");
    assert.equal(requests[1].headers.range, "bytes=4-");
  }));
