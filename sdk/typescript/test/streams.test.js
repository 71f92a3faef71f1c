// Streams of events, and their resumption.

import assert from "node:assert/strict";
import { afterEach, mock, test } from "node:test";

import { Client } from "cloude";

import { EventReader } from "../dist/events.js";
import { collect, events, execution, output, problem, result, scripted, withoutDelays } from "./support.js";

/** @type {[string, Record<string, unknown>]} */
const ACCEPTED = ["0", { event: "accepted", id: "e1" }];

afterEach(() => mock.restoreAll());

test("events come in order", () => {
  const stream = events([
    ACCEPTED,
    ["2", { event: "started", stage: "run" }],
    ["3", output("4")],
    ["4", { event: "of_a_later_version" }],
    ["5", { event: "dropped", stage: "run", stream: "stdout", bytes: 9 }],
    ["6", output({ base64: "/w==" }, "stderr")],
    ["7", result()],
  ]);
  return scripted([stream], async ({ url, requests }) => {
    const got = await collect(new Client({ url }).stream("python", "print(4)"));
    const last = got.pop();
    assert.deepEqual(got, [
      { event: "accepted", id: "e1" },
      { event: "started", stage: "run" },
      { event: "output", stage: "run", stream: "stdout", text: "4", data: Uint8Array.of(52) },
      { event: "dropped", stage: "run", stream: "stdout", bytes: 9 },
      { event: "output", stage: "run", stream: "stderr", text: "\ufffd", data: Uint8Array.of(255) },
    ]);
    assert.ok(last?.event === "result" && last.execution.exit_code === 0);
    assert.equal(requests.length, 1);
    assert.equal(`${requests[0].method} ${requests[0].path}`, "POST /v1/executions");
    assert.equal(requests[0].headers.accept, "text/event-stream");
    assert.deepEqual(JSON.parse(requests[0].body), { language: "python", code: "print(4)" });
  });
});

test("a broken stream continues after the last whole event", () => {
  withoutDelays();
  const cut = { ...events([ACCEPTED, ["run:stdout:1", output("a")]]), breaks: true };
  cut.body += 'id: run:stdout:2\ndata: {"event": "output", "st';
  const rest = events([["run:stdout:2", output("b")], ["end", result()]]);
  return scripted([cut, { status: 0 }, problem(503), rest], async ({ url, requests }) => {
    const got = await collect(new Client({ url }).stream("python", "1"));
    assert.deepEqual(got.map((item) => item.event === "output" && item.text), [false, "a", "b", false]);
    const ids = requests.map((request) => request.headers["last-event-id"]);
    assert.deepEqual(ids, [undefined, "run:stdout:1", "run:stdout:1", "run:stdout:1"]);
    assert.equal(requests[3].path, "/v1/executions/e1/events");
  });
});

test("a stream that breaks before its id is asked for again", () => {
  withoutDelays();
  const replies = [{ status: 0 }, events([]), events([ACCEPTED, ["1", result()]])];
  return scripted(replies, async ({ url, requests }) => {
    assert.equal((await collect(new Client({ url }).stream("python", "1"))).length, 2);
    assert.deepEqual(requests.map(({ method }) => method), ["POST", "POST", "POST"]);
    assert.equal(new Set(requests.map((request) => request.headers["idempotency-key"])).size, 1);
  });
});

test("a refused start is not sent again", () =>
  scripted([problem(400)], async ({ url, requests }) => {
    await assert.rejects(collect(new Client({ url }).stream("python", "1")), { name: "BadRequest" });
    assert.equal(requests.length, 1);
  }));

test("a stream that ends without a result is resumed", () => {
  withoutDelays();
  return scripted([events([["1", output("a")]]), events([["2", result()]])], async ({ url, requests }) => {
    assert.equal((await collect(new Client({ url }).job("e1").events())).length, 2);
    assert.equal(requests[1].headers["last-event-id"], "1");
  });
});

test("a stream that never continues is an error", () => {
  withoutDelays();
  const replies = [events([["1", output("a")]]), events([]), events([]), events([])];
  return scripted(replies, async ({ url, requests }) => {
    const job = new Client({ url, maxRetries: 3 }).job("e1");
    await assert.rejects(collect(job.events()), { name: "ConnectionFailed", message: /before its result/ });
    assert.equal(requests.length, 4);
  });
});

test("leaving a stream early cancels its execution", () => {
  const stream = { ...events([ACCEPTED, ["1", output("a")]]), breaks: true };
  return scripted([stream, { body: execution({ cause: "cancelled" }) }], async ({ url, requests }) => {
    for await (const event of new Client({ url }).stream("python", "1")) {
      if (event.event === "output") break;
    }
    assert.deepEqual(requests.slice(1).map(({ method, path }) => [method, path]), [["DELETE", "/v1/executions/e1"]]);
  });
});

test("an abort cancels the execution of a stream", () => {
  const stream = { ...events([ACCEPTED, ["1", output("a")]]), breaks: true };
  return scripted([stream, { body: execution({ cause: "cancelled" }) }], async ({ url, requests }) => {
    const abort = new AbortController();
    const reading = async () => {
      for await (const _ of new Client({ url }).stream("python", "1", { signal: abort.signal })) {
        abort.abort(new Error("enough"));
      }
    };
    await assert.rejects(reading, { message: "enough" });
    assert.deepEqual(requests.slice(1).map(({ method }) => method), ["DELETE"]);
  });
});

test("leaving the events of a job cancels nothing", () =>
  scripted([{ ...events([["1", output("a")]]), breaks: true }], async ({ url, requests }) => {
    for await (const _ of new Client({ url }).job("e1").events()) break;
    assert.equal(requests.length, 1);
  }));

test("a refused stream is an error", () =>
  scripted([problem(404)], async ({ url }) => {
    await assert.rejects(collect(new Client({ url }).job("nobody").events()), { name: "NotFound" });
  }));

test("the reader takes bytes cut anywhere", () => {
  const first = JSON.stringify(output("é€"));
  const second = JSON.stringify(output("x")).slice(1);
  const head = `: keep-alive\r\nretry: 1500\r\nid: 7\r\nevent: output\r\ndata:${first}\r\n\r\n`;
  const raw = new TextEncoder().encode(`${head}id: 8\ndata: {\ndata: ${second}\n\nevent: none\n\n`);
  for (const size of [1, 2, 3, 1000]) {
    const reader = new EventReader();
    reader.connect();
    const got = [];
    for (let at = 0; at < raw.length; at += size) got.push(...reader.feed(raw.subarray(at, at + size)));
    assert.deepEqual(got.map((event) => event.event === "output" && event.text), ["é€", "x"]);
    assert.equal(reader.reconnectAfterMs, 1500);
    assert.equal(reader.connect()["last-event-id"], "8");
  }
});

test("an event that is no JSON is an error", () => {
  for (const line of ["data: {\n\n", "data: 3\n\n", 'data: {"event": "output"}\n\n']) {
    assert.throws(() => new EventReader().feed(new TextEncoder().encode(line)), { name: "ProtocolError" });
  }
});
