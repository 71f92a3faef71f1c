// Requests that are sent again.

import assert from "node:assert/strict";
import { afterEach, mock, test } from "node:test";

import { Client } from "cloude";

import { retryAfter } from "../dist/retry.js";
import { execution, problem, scripted, withoutDelays } from "./support.js";

afterEach(() => mock.restoreAll());

for (const status of [429, 503]) {
  test(`after ${status} the server is asked again after its delay`, () => {
    const delays = withoutDelays();
    const busy = { ...problem(status), headers: { "retry-after": "7" } };
    return scripted([busy, busy, { body: execution() }], async ({ url }) => {
      assert.equal((await new Client({ url }).run("python", "1")).exit_code, 0);
      assert.equal(delays.length, 2);
      assert.ok(delays.every((delay) => delay >= 7000 && delay <= 7700));
    });
  });
}

test("a broken connection is made again with the same key", () => {
  const delays = withoutDelays();
  return scripted([{ status: 0 }, { body: "{", breaks: true }, { body: execution() }], async ({ url, requests }) => {
    assert.equal((await new Client({ url }).run("python", "1")).exit_code, 0);
    assert.equal(requests.length, 3);
    assert.equal(new Set(requests.map((request) => request.headers["idempotency-key"])).size, 1);
    assert.ok(delays[0] >= 250 && delays[0] <= 500 && delays[1] >= 500 && delays[1] <= 1000);
  });
});

test("each call has a key of its own", () => {
  const ok = { body: execution() };
  return scripted([ok, { ...ok }, { ...ok }], async ({ url, requests }) => {
    const client = new Client({ url });
    await client.run("python", "1");
    await client.run("python", "1");
    await client.run("python", "1", { idempotencyKey: "mine" });
    const [first, second, third] = requests.map((request) => request.headers["idempotency-key"]);
    assert.match(String(first), /^[0-9a-f]{32}$/);
    assert.notEqual(first, second);
    assert.equal(third, "mine");
    assert.deepEqual(JSON.parse(requests[2].body), { language: "python", code: "1" });
  });
});

test("retries end", () => {
  withoutDelays();
  return scripted([{ status: 0 }, problem(503), { status: 0 }], async ({ url, requests }) => {
    const run = new Client({ url, maxRetries: 2 }).run("python", "1");
    await assert.rejects(run, { name: "ConnectionFailed" });
    // The last one asks for the id of the execution, to cancel it.
    const preferences = requests.map((request) => request.headers.prefer);
    assert.deepEqual(preferences, [undefined, undefined, undefined, "respond-async"]);
  });
});

test("an unreachable server is named", async () => {
  const delays = withoutDelays();
  let closed = "";
  await scripted([], async ({ url }) => void (closed = url));
  const run = new Client({ url: closed, maxRetries: 1 }).run("python", "1");
  await assert.rejects(run, { name: "ConnectionFailed", message: new RegExp(`^${closed}: .*ECONNREFUSED`) });
  assert.equal(delays.length, 1);
});

for (const status of [400, 404, 422, 500]) {
  test(`the refusal ${status} is final`, () => {
    const delays = withoutDelays();
    return scripted([problem(status)], async ({ url, requests }) => {
      await assert.rejects(new Client({ url }).run("python", "1"), { status });
      assert.equal(requests.length, 1);
      assert.deepEqual(delays, []);
    });
  });
}

test("a long delay is left to the caller", () => {
  const delays = withoutDelays();
  return scripted([{ ...problem(429), headers: { "retry-after": "3600" } }], async ({ url }) => {
    await assert.rejects(new Client({ url }).run("python", "1"), { name: "TooManyRequests", retryAfterS: 3600 });
    assert.deepEqual(delays, []);
  });
});

test("an abort ends a wait for a retry", () =>
  scripted([{ ...problem(503), headers: { "retry-after": "50" } }], async ({ url, requests }) => {
    const abort = new AbortController();
    const fetch = async (/** @type {string} */ to, /** @type {RequestInit} */ init) => {
      const response = await globalThis.fetch(to, init);
      if (!abort.signal.aborted) setImmediate(() => abort.abort(new Error("enough")));
      return response;
    };
    const run = new Client({ url, fetch }).run("python", "1", { signal: abort.signal });
    await assert.rejects(run, { message: "enough" });
    assert.deepEqual(requests.map((request) => request.headers.prefer), [undefined, "respond-async"]);
  }));

test("Retry-After may be a date", () => {
  const after = (/** @type {string} */ value) => retryAfter(new Response("", { headers: { "retry-after": value } }));
  const delay = after(new Date(Date.now() + 100_000).toUTCString());
  assert.ok(delay !== undefined && delay > 90 && delay <= 100);
  for (const text of ["soon", "-1", ""]) assert.equal(after(text), undefined);
});
