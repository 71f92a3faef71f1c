/** fetch over a Unix socket, which that of Node.js does not offer. */

import * as http from "node:http";
import { Readable } from "node:stream";
import type { ReadableStream as NodeStream } from "node:stream/web";

type Fetch = (url: string, init: RequestInit) => Promise<Response>;

/** A fetch whose requests go to this socket. Bodies of requests are strings. */
export function unixFetch(path: string): Fetch {
  return (url, init) =>
    new Promise((resolve, reject) => {
      const { pathname, search } = new URL(url);
      const request = http.request({
        socketPath: path,
        path: pathname + search,
        method: init.method ?? "GET",
        headers: { host: "localhost", ...Object.fromEntries(new Headers(init.headers)) },
        ...(init.signal ? { signal: init.signal } : {}),
      });
      request.on("error", reject);
      request.on("response", (response) => {
        const headers = new Headers();
        for (const [name, value] of Object.entries(response.headers)) {
          headers.set(name, String(value));
        }
        const status = response.statusCode ?? 500;
        const body = status === 204 ? null : (Readable.toWeb(response) as NodeStream as ReadableStream<Uint8Array>);
        resolve(new Response(body, { status, headers }));
      });
      request.end(init.body as string | undefined);
    });
}
