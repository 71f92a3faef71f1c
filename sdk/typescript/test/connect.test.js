// The server's address and the API key.

import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

import { Client } from "cloude";

import { unixFetch } from "../dist/unix-none.js";
import { collect, events, execution, result, scripted, summary } from "./support.js";

test("a Unix socket is an address", async () => {
  const folder = mkdtempSync(join(tmpdir(), "cloude-sdk-"));
  try {
    const replies = [{ body: execution() }, { status: 202, body: summary() }, events([["1", result()]])];
    await scripted(
      replies,
      async ({ url, requests }) => {
        const client = new Client({ url });
        assert.equal((await client.run("python", "1")).exit_code, 0);
        assert.equal((await collect(client.stream("python", "1"))).length, 1);
        assert.equal(requests[0].headers.host, "localhost");
        assert.equal(JSON.parse(requests[0].body).code, "1");
      },
      join(folder, "api.sock"),
    );
    const missing = new Client({ url: `unix:${folder}/none.sock`, maxRetries: 0 }).languages();
    await assert.rejects(missing, { name: "ConnectionFailed", message: /none\.sock: .*ENOENT/ });
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("browsers refuse the address of a Unix socket", () => {
  assert.throws(() => unixFetch("/run/api.sock"), { message: /Node\.js alone/ });
});

test("address and key come from the environment", () =>
  scripted([{ body: execution() }], async ({ url, requests }) => {
    process.env.CLOUDE_BACKEND = url.replace("http://", "");
    process.env.CLOUDE_API_KEY = " cloude_1_2\n";
    try {
      await new Client().run("python", "1");
    } finally {
      delete process.env.CLOUDE_BACKEND;
      delete process.env.CLOUDE_API_KEY;
    }
    assert.equal(requests[0].headers.authorization, "Bearer cloude_1_2");
  }));

test("a path of the URL is kept", () =>
  scripted([{ body: [] }], async ({ url, requests }) => {
    await new Client({ url: `${url}/behind/proxy/` }).languages();
    assert.equal(requests[0].path, "/behind/proxy/v1/languages");
  }));

test("other addresses are refused", () => {
  for (const url of ["unix:api.sock", "ftp://host", "http://", "http://host:port"]) {
    assert.throws(() => new Client({ url }), { message: /must be absolute|use http:/ });
  }
});

test("a key of something else is refused", () => {
  for (const apiKey of ["sk-123", "cloude_1 2", "cloude_é"]) {
    assert.throws(() => new Client({ apiKey }), (/** @type {Error} */ error) => {
      return error.message.includes("begins with cloude_") && !error.message.includes(apiKey);
    });
  }
});
