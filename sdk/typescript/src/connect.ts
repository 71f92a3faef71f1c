/** The server's address and the API key: options, else the variables that `cloude` reads (in Node.js). */

import { unixFetch } from "#unix";

export type Fetch = (url: string, init: RequestInit) => Promise<Response>;

/** A base URL that ends in a slash, the address for messages, and how requests are sent. */
export interface Address {
  base: string;
  shown: string;
  fetch: Fetch;
}

const DEFAULT_URL = "http://127.0.0.1:8080";

/** `http://HOST:PORT`, `https://HOST`, `HOST:PORT` or `unix:/PATH`; else `CLOUDE_BACKEND`. */
export function address(url: string | undefined, fetch: Fetch | undefined): Address {
  const text = url || environment("CLOUDE_BACKEND") || DEFAULT_URL;
  if (text.startsWith("unix:")) {
    const path = text.slice("unix:".length);
    if (!path.startsWith("/")) {
      throw new RangeError(`${text}: the path of a Unix socket must be absolute`);
    }
    return { base: "http://localhost/", shown: text, fetch: fetch ?? unixFetch(path) };
  }
  const full = text.includes("://") ? text : `http://${text}`;
  if (!/^https?:\/\/./.test(full) || !URL.canParse(full)) {
    throw new RangeError(`${text}: use http://HOST:PORT, https://HOST or unix:/PATH`);
  }
  const shown = full.replace(/\/+$/, "");
  return { base: `${shown}/`, shown, fetch: fetch ?? ((to, init) => globalThis.fetch(to, init)) };
}

/** The key without white space; else `CLOUDE_API_KEY`. */
export function apiKey(key: string | undefined): string | undefined {
  const text = (key || environment("CLOUDE_API_KEY") || "").trim();
  if (text === "") {
    return undefined;
  }
  if (!/^cloude_[!-~]+$/.test(text)) {
    throw new RangeError("the API key is not one of Cloude: it begins with cloude_ (CLOUDE_API_KEY)");
  }
  return text;
}

function environment(name: string): string | undefined {
  const { process } = globalThis as { process?: { env?: Record<string, string | undefined> } };
  return process?.env?.[name];
}
