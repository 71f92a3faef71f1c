// Attached connections.

import assert from "node:assert/strict";
import { test } from "node:test";

import { WebSocket, WebSocketServer } from "ws";

import { Client, ConnectionFailed } from "cloude";

import { output, result } from "./support.js";

const INTERACTIVE = { terminal: { columns: 80, rows: 24 } };

/**
 * A program that sends back what it gets, and ends at the end of its input or with a signal.
 *
 * @param {(server: { url: string, got: unknown[], requests: import("node:http").IncomingMessage[] }) => Promise<void>} test
 */
async function program(test) {
  /** @type {unknown[]} */
  const got = [];
  /** @type {import("node:http").IncomingMessage[]} */
  const requests = [];
  const server = new WebSocketServer({ port: 0, host: "127.0.0.1", handleProtocols: (offered) => [...offered][0] ?? false });
  server.on("connection", (socket, request) => {
    requests.push(request);
    /** @param {object} event */
    const send = (event) => socket.send(JSON.stringify(event));
    send({ event: "accepted", id: "e1", interactive: INTERACTIVE });
    send({ event: "of_a_later_version" });
    send({ event: "started", stage: "run" });
    socket.on("message", (message, isBinary) => {
      const bytes = /** @type {Buffer} */ (message);
      got.push(isBinary ? bytes : JSON.parse(bytes.toString()));
      if (isBinary) send(output(bytes.toString()));
      else if (bytes.includes("close_stdin")) {
        send(result());
        socket.close(1000);
      } else if (bytes.includes("signal")) socket.close(1012, "the server is shutting down");
    });
  });
  await new Promise((resolve) => server.once("listening", resolve));
  const { port } = /** @type {import("node:net").AddressInfo} */ (server.address());
  try {
    await test({ url: `http://127.0.0.1:${port}`, got, requests });
  } finally {
    for (const socket of server.clients) socket.terminate();
    await new Promise((resolve) => server.close(resolve));
  }
}

/** @param {{ url: string, apiKey?: string }} options */
const client = (options) => new Client({ ...options, WebSocket });

test("input goes and events come", () =>
  program(async ({ url, got, requests }) => {
    const attached = await client({ url, apiKey: "cloude_key" }).job("e 1").attach();
    await attached.send("h\u00e9llo");
    await attached.send(Uint8Array.of(114, 97, 119));
    attached.resize(100, 30);
    attached.closeStdin();
    const texts = [];
    let last;
    for await (const event of attached) {
      if (event.event === "accepted") assert.deepEqual(event.interactive, INTERACTIVE);
      if (event.event === "output") texts.push(event.text);
      last = event;
    }
    assert.deepEqual(texts, ["h\u00e9llo", "raw"]);
    assert.ok(last?.event === "result" && last.execution.exit_code === 0);
    const resize = { resize: { columns: 100, rows: 30 } };
    assert.deepEqual(got.map((item) => (Buffer.isBuffer(item) ? item.toString() : item)), ["h\u00e9llo", "raw", resize, { close_stdin: true }]);
    assert.equal(requests[0]?.url, "/v1/executions/e%201/attach");
    assert.equal(requests[0]?.headers["sec-websocket-protocol"], "cloude.v1,cloude.key.cloude_key");
  }));

test("large input is cut into messages", () =>
  program(async ({ url, got }) => {
    const attached = await client({ url }).job("e1").attach();
    await attached.send("x".repeat(300_000));
    attached.closeStdin();
    assert.equal((await attached.wait()).exit_code, 0);
    const pieces = got.filter((item) => Buffer.isBuffer(item));
    assert.equal(Buffer.concat(pieces).length, 300_000);
    assert.ok(pieces.every((piece) => piece.length <= 65_536));
  }));

test("a close frame before the result is an error", () =>
  program(async ({ url }) => {
    const attached = await client({ url }).job("e1").attach();
    attached.signal("INT");
    await assert.rejects(attached.wait(), (error) => error instanceof ConnectionFailed && /shutting down/.test(error.message));
  }));

test("an unreachable server is an error", () =>
  assert.rejects(client({ url: "http://127.0.0.1:1" }).job("e1").attach(), ConnectionFailed));

test("a Unix socket and a missing WebSocket are errors that say so", async () => {
  await assert.rejects(client({ url: "unix:/run/x.sock" }).job("e1").attach(), /http and https/);
  if (!("WebSocket" in globalThis)) {
    await assert.rejects(new Client().job("e1").attach(), /give the option WebSocket/);
  }
});
