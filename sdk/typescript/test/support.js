/** A scripted HTTP server, and documents of the API as a server sends them. */

import { createServer } from "node:http";
import { mock } from "node:test";

import { timing } from "../dist/retry.js";

/** @typedef {{ status?: number, body?: unknown, headers?: Record<string, string>, breaks?: boolean, waits?: boolean }} Reply */
/** @typedef {{ method: string, path: string, headers: import("node:http").IncomingHttpHeaders, body: string }} Request */

for (const name of ["CLOUDE_BACKEND", "CLOUDE_API_KEY"]) {
  delete process.env[name];
}

/**
 * Answers each request with the next reply, in order, and records the requests. A reply with the status 0 closes the
 * connection, and one that `breaks` closes it before the end of the body.
 *
 * @param {Reply[]} replies
 * @param {(server: { url: string, requests: Request[] }) => Promise<void>} test
 * @param {string} [socket]
 */
export async function scripted(replies, test, socket) {
  /** @type {Request[]} */
  const requests = [];
  const server = createServer(async (request, response) => {
    let body = "";
    for await (const chunk of request) body += chunk;
    requests.push({ method: request.method ?? "", path: request.url ?? "", headers: request.headers, body });
    const reply = replies.shift() ?? { status: 500, body: { detail: "no reply is left" } };
    if (reply.waits) return; // The end of the test closes the connection.
    if (reply.status === 0) {
      request.socket.destroy();
      return;
    }
    const content = reply.body instanceof Uint8Array || typeof reply.body === "string" ? reply.body : JSON.stringify(reply.body ?? "");
    response.writeHead(reply.status ?? 200, { ...reply.headers });
    if (reply.breaks) {
      response.write(content, () => request.socket.destroySoon());
    } else {
      response.end(content);
    }
  });
  await new Promise((done) => (socket ? server.listen(socket, () => done(0)) : server.listen(0, "127.0.0.1", () => done(0))));
  const address = server.address();
  const url = socket ? `unix:${socket}` : `http://127.0.0.1:${typeof address === "object" && address?.port}`;
  try {
    await test({ url, requests });
  } finally {
    server.closeAllConnections();
    await new Promise((done) => server.close(done));
  }
}

/**
 * Retries take no time in this test; the result lists their delays in milliseconds.
 *
 * @returns {number[]}
 */
export function withoutDelays() {
  /** @type {number[]} */
  const delays = [];
  mock.method(timing, "sleep", async (/** @type {number} */ ms) => void delays.push(ms));
  return delays;
}

/**
 * @param {number} status
 * @param {object} [fields]
 * @returns {Reply}
 */
export function problem(status, fields = {}) {
  const body = { type: "about:blank", title: "", status, detail: "the reason", ...fields };
  return { status, body, headers: { "content-type": "application/problem+json" } };
}

/**
 * Server-sent events: pairs of an id and the JSON.
 *
 * @param {[string, Record<string, unknown>][]} items
 * @returns {{ body: string, headers: Record<string, string>, breaks?: boolean }}
 */
export function events(items) {
  const body = items.map(([id, item]) => `id: ${id}\nevent: ${item.event}\ndata: ${JSON.stringify(item)}\n\n`).join("");
  return { body, headers: { "content-type": "text/event-stream" } };
}

/** @param {object} [fields] */
export function execution(fields = {}) {
  const stage = { cause: "exit", exit_code: 0, signal: null, wall_time_us: 4, cpu_time_us: 3, peak_memory_bytes: 4096 };
  const output = { stdout_bytes: 3, stdout_dropped: 0, stderr_bytes: 0, stderr_dropped: 0 };
  return {
    id: "e1",
    language: "python",
    status: "done",
    cause: "exit",
    exit_code: 0,
    signal: null,
    stdout: "42\n",
    stderr: "",
    run: { ...stage, ...output },
    timings: { queue_us: 1, start_us: 2, identity_us: 3, compile_us: 0, run_us: 4, collect_us: 5, total_us: 15 },
    start: "pool",
    memory_bytes: 402653184,
    created_ms: 1,
    ...fields,
  };
}

/**
 * @param {string} [id]
 * @param {object} [fields]
 */
export function summary(id = "e1", fields = {}) {
  return { id, status: "pending", language: "python", created_ms: 1, ...fields };
}

/**
 * @param {unknown} data
 * @param {string} [stream]
 */
export function output(data, stream = "stdout") {
  return { event: "output", stage: "run", stream, data };
}

export function result() {
  return { event: "result", ...execution({ stdout: "" }) };
}

/**
 * @template T
 * @param {AsyncIterable<T>} items
 */
export async function collect(items) {
  /** @type {T[]} */
  const found = [];
  for await (const item of items) found.push(item);
  return found;
}
