/** The client and its jobs. */

import { attach, type Attached, type WebSocketClass } from "./attach.js";
import { address, apiKey, type Address, type Fetch } from "./connect.js";
import * as data from "./data.js";
import { ApiError, ConnectionFailed, ProtocolError, WaitTimeout, refusal } from "./errors.js";
import { EventReader } from "./events.js";
import { body } from "./request.js";
import { Retries, retryAfter, timing } from "./retry.js";
import type {
  Artifact,
  CallOptions,
  Event,
  Execution,
  ExecutionList,
  ExecutionSummary,
  LanguageInfo,
  RunOptions,
  StageName,
  StartOptions,
  Status,
  StreamName,
  SubmitOptions,
  Usage,
} from "./types.js";

/** The server waits at most 60 s. Proxies often cut connections that are silent for as long. */
const LONGEST_WAIT_S = 30;
/** The time-out of the requests that cancel an execution whose caller does not wait any more. */
const ABANDON_MS = 5000;

export interface ClientOptions {
  /** `http://HOST:PORT`, `https://HOST` or `unix:/PATH` (Node.js); else the variable CLOUDE_BACKEND. */
  url?: string;
  /** Begins with `cloude_`; else the variable CLOUDE_API_KEY. */
  apiKey?: string;
  /** How often a request is sent again that is answered 429 or 503, or whose connection fails. 5 by default. */
  maxRetries?: number;
  /** Sends the requests in place of the global fetch. */
  fetch?: Fetch;
  /** Connects `Job.attach` in place of the global WebSocket, which Node.js has since version 22. */
  WebSocket?: WebSocketClass;
}

export interface ListOptions extends CallOptions {
  status?: Status;
  language?: string;
  labels?: Readonly<Record<string, string>>;
  /** Executions per request. */
  pageSize?: number;
}

interface Call {
  method: "GET" | "POST" | "DELETE";
  path: string;
  headers?: Record<string, string>;
  body?: string;
  signal?: AbortSignal | undefined;
  retries?: number;
}

/** A client of one server. */
export class Client {
  readonly url: string;
  readonly #address: Address;
  readonly #headers: Record<string, string>;
  readonly #maxRetries: number;
  readonly #attach: (id: string, options: CallOptions) => Promise<Attached>;

  constructor(options: ClientOptions = {}) {
    const key = apiKey(options.apiKey);
    this.#address = address(options.url, options.fetch);
    this.url = this.#address.shown;
    this.#headers = key === undefined ? {} : { authorization: `Bearer ${key}` };
    this.#maxRetries = options.maxRetries ?? 5;
    this.#attach = (id, call) => attach(this.#address, key, id, options.WebSocket, call);
  }

  /**
   * Runs a program in a fresh VM and waits for its result. A program that fails is no error. An abort of the signal cancels
   * the execution.
   */
  async run(language: string, code: string, options: RunOptions & StartOptions = {}): Promise<Execution> {
    const call = start(language, code, options);
    try {
      return data.execution(await this.#json(call));
    } catch (error) {
      if (!(error instanceof ApiError || error instanceof ProtocolError)) await this.#abandon(call);
      throw error;
    }
  }

  /**
   * Runs a program and returns its events as they come. It starts when the first event is read.
   *
   * Leaving the loop before the last event cancels the execution. A connection that breaks is made again, and continues
   * at the byte where it broke.
   */
  stream(language: string, code: string, options: RunOptions & StartOptions = {}): AsyncGenerator<Event, void, void> {
    return this.#events(start(language, code, options), options.signal);
  }

  /** Starts a durable execution: it outlives this client, and a crash of the server. */
  async submit(language: string, code: string, options: SubmitOptions & StartOptions = {}): Promise<Job> {
    return this.job(await this.#id(submitted(start(language, code, options))));
  }

  /** The handle of an execution that was started before. Sends no request. */
  job(id: string): Job {
    return new Job(
      id,
      this,
      (path, call) => this.#json({ ...call, path }),
      (signal) => this.#events(id, signal),
      (options) => this.#attach(id, options),
    );
  }

  /** The executions that fit all filters, newest first. Reads further pages as they are needed. */
  async *executions(options: ListOptions = {}): AsyncGenerator<ExecutionSummary, void, void> {
    const query = new URLSearchParams({ limit: String(options.pageSize ?? 100) });
    for (const name of ["status", "language"] as const) {
      const value = options[name];
      if (value) query.set(name, value);
    }
    for (const [name, value] of Object.entries(options.labels ?? {})) {
      query.append("label", `${name}:${value}`);
    }
    for (;;) {
      const page = (await this.#get(`v1/executions?${query}`, options)) as ExecutionList;
      yield* page.executions;
      if (page.next_cursor === undefined) return;
      query.set("cursor", page.next_cursor);
    }
  }

  /** The files that the program left, of those that `artifacts` of the request named. */
  async artifacts(id: string, options: CallOptions = {}): Promise<Artifact[]> {
    return (await this.#get(`${path(id)}/artifacts`, options)) as Artifact[];
  }

  /** The content of one of them. */
  async artifact(id: string, file: string, options: CallOptions = {}): Promise<Uint8Array> {
    const escaped = file.split("/").map(encodeURIComponent).join("/");
    return this.#bytes({ method: "GET", path: `${path(id)}/artifacts/${escaped}`, signal: options.signal });
  }

  /** The stored bytes of an output stream, without the first `start` ones. */
  async output(
    id: string,
    stream: StreamName,
    options: CallOptions & { stage?: StageName; start?: number } = {},
  ): Promise<Uint8Array> {
    const headers: Record<string, string> = options.start ? { range: `bytes=${options.start}-` } : {};
    const query = `stage=${options.stage ?? "run"}`;
    return this.#bytes({ method: "GET", path: `${path(id)}/${stream}?${query}`, headers, signal: options.signal });
  }

  /** The languages of the server. */
  async languages(options: CallOptions = {}): Promise<LanguageInfo[]> {
    return (await this.#get("v1/languages", options)) as LanguageInfo[];
  }

  /** What the executions of the caller's API key used; of each key for an administrator. */
  async usage(options: CallOptions = {}): Promise<Usage[]> {
    return (await this.#get("v1/usage", options)) as Usage[];
  }

  #get(path: string, options: CallOptions): Promise<unknown> {
    return this.#json({ method: "GET", path, signal: options.signal });
  }

  async #id(call: Call): Promise<string> {
    return data.object(await this.#json(call), "id")["id"] as string;
  }

  async #json(call: Call): Promise<unknown> {
    const text = new TextDecoder().decode(await this.#bytes(call));
    try {
      return JSON.parse(text);
    } catch (error) {
      throw new ProtocolError(`${this.url}/${call.path} answered no JSON: is it a Cloude server?`, { cause: error });
    }
  }

  /** The body of a successful response. */
  async #bytes(call: Call): Promise<Uint8Array> {
    const retries = new Retries(call.retries ?? this.#maxRetries);
    for (;;) {
      let delay: number | undefined;
      try {
        const response = await this.#fetch(call);
        const content = new Uint8Array(await response.arrayBuffer());
        if (response.ok) return content;
        delay = retries.afterResponse(response);
        if (delay === undefined) {
          throw refusal(response.status, new TextDecoder().decode(content), retryAfter(response));
        }
      } catch (error) {
        if (error instanceof ApiError) throw error;
        call.signal?.throwIfAborted();
        delay = retries.afterFailure();
        if (delay === undefined) throw this.#failed(error);
      }
      await timing.sleep(delay, call.signal);
    }
  }

  /** The events of the execution with this id, or of the one that this call starts, which ends with the stream. */
  async *#events(source: string | Call, signal: AbortSignal | undefined): AsyncGenerator<Event, void, void> {
    let id = typeof source === "string" ? source : undefined;
    let cancel = typeof source !== "string";
    const reader = new EventReader();
    let retries = new Retries(this.#maxRetries);
    try {
      for (;;) {
        let delay: number | undefined;
        let broken: unknown = new Error("the server ended the stream before its result");
        try {
          const call: Call =
            typeof source !== "string" && id === undefined
              ? source
              : { method: "GET", path: `${path(id ?? "")}/events`, signal };
          const response = await this.#fetch({ ...call, headers: { ...call.headers, ...reader.connect() } });
          if (!response.ok) {
            const text = await response.text();
            delay = retries.afterResponse(response);
            if (delay === undefined) {
              cancel &&= id !== undefined;
              throw refusal(response.status, text, retryAfter(response));
            }
          } else {
            for await (const chunk of chunks(response)) {
              for (const event of reader.feed(chunk)) {
                retries = new Retries(this.#maxRetries);
                if (event.event === "accepted") id = event.id;
                yield event;
              }
              if (reader.ended) return;
            }
          }
        } catch (error) {
          if (error instanceof ApiError || error instanceof ProtocolError) throw error;
          signal?.throwIfAborted();
          broken = error;
        }
        delay ??= retries.afterFailure();
        if (delay === undefined) throw this.#failed(broken);
        await timing.sleep(Math.max(delay, reader.reconnectAfterMs), signal);
      }
    } finally {
      if (cancel && !reader.ended && typeof source !== "string") await this.#abandon(source, id);
    }
  }

  /** Cancels the execution with this id, or the one that this call may have started. */
  async #abandon(call: Call, id?: string): Promise<void> {
    const hurried = { retries: 0, signal: AbortSignal.timeout(ABANDON_MS) };
    try {
      id ??= await this.#id({ ...submitted(call), ...hurried });
      await this.#bytes({ method: "DELETE", path: path(id), ...hurried });
    } catch {
      // The execution ends at its limits.
    }
  }

  #fetch({ method, path, headers, body, signal }: Call): Promise<Response> {
    return this.#address.fetch(this.#address.base + path, {
      method,
      headers: { accept: "application/json", ...this.#headers, ...headers },
      redirect: "manual",
      ...(body === undefined ? {} : { body }),
      ...(signal === undefined ? {} : { signal }),
    });
  }

  #failed(error: unknown): ConnectionFailed {
    // The message of Node's fetch is `fetch failed`; its cause has the reason.
    const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
    const reason = cause instanceof Error ? cause.message || ("code" in cause && cause.code) || cause.name : cause;
    return new ConnectionFailed(`${this.url}: ${reason}`, { cause: error });
  }
}

/** A durable execution. */
export class Job {
  readonly id: string;
  readonly #client: Client;
  readonly #send: (path: string, call: Pick<Call, "method" | "signal">) => Promise<unknown>;
  readonly #follow: (signal: AbortSignal | undefined) => AsyncGenerator<Event, void, void>;
  readonly #attach: (options: CallOptions) => Promise<Attached>;

  /** @internal `Client.job` makes it. */
  constructor(
    id: string,
    client: Client,
    send: (path: string, call: Pick<Call, "method" | "signal">) => Promise<unknown>,
    follow: (signal: AbortSignal | undefined) => AsyncGenerator<Event, void, void>,
    attach: (options: CallOptions) => Promise<Attached>,
  ) {
    this.id = id;
    this.#client = client;
    this.#send = send;
    this.#follow = follow;
    this.#attach = attach;
  }

  /** Its status, without its output. */
  async status(options: CallOptions = {}): Promise<ExecutionSummary> {
    const found = await this.#send(path(this.id), { method: "GET", signal: options.signal });
    return data.object(found, "id", "status") as unknown as ExecutionSummary;
  }

  /** Waits for the result. Throws WaitTimeout after `timeoutMs`; the execution goes on then. */
  async wait(options: CallOptions & { timeoutMs?: number } = {}): Promise<Execution> {
    const until = options.timeoutMs === undefined ? Infinity : Date.now() + options.timeoutMs;
    for (;;) {
      const seconds = Math.max(0, Math.min(Math.ceil((until - Date.now()) / 1000), LONGEST_WAIT_S));
      const call = { method: "GET", signal: options.signal } as const;
      const found = data.object(await this.#send(`${path(this.id)}?wait=${seconds}s`, call), "status");
      if (found["status"] !== "pending" && found["status"] !== "running") return data.execution(found);
      if (Date.now() >= until) {
        throw new WaitTimeout(`the execution ${this.id} has not ended within ${options.timeoutMs} ms`);
      }
    }
  }

  /** Its events from the start. Leaving the loop does not cancel the execution. */
  events(options: CallOptions = {}): AsyncGenerator<Event, void, void> {
    return this.#follow(options.signal);
  }

  /**
   * Connects to it: its events come, and input goes if it was submitted with `interactive`. Needs a WebSocket
   * (`ClientOptions.WebSocket`).
   */
  attach(options: CallOptions = {}): Promise<Attached> {
    return this.#attach(options);
  }

  /** Kills its VM, and returns the result with the output so far. */
  async cancel(options: CallOptions = {}): Promise<Execution> {
    return data.execution(await this.#send(path(this.id), { method: "DELETE", signal: options.signal }));
  }

  /** The content of a file that the program left. */
  artifact(file: string, options: CallOptions = {}): Promise<Uint8Array> {
    return this.#client.artifact(this.id, file, options);
  }
}

/** Waits for the result. The execution outlives its connection, because it has an idempotency key. */
function start(language: string, code: string, options: SubmitOptions & StartOptions): Call {
  return {
    method: "POST",
    path: "v1/executions",
    headers: { "content-type": "application/json", "idempotency-key": options.idempotencyKey ?? uniqueKey() },
    body: body(language, code, options),
    signal: options.signal,
  };
}

/** The summary of the execution that this call has started, or starts, without waiting for it. */
function submitted(call: Call): Call {
  return { ...call, headers: { ...call.headers, prefer: "respond-async" } };
}

// crypto.randomUUID exists in secure contexts of browsers alone.
function uniqueKey(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function path(id: string): string {
  return `v1/executions/${encodeURIComponent(id)}`;
}

// Not every browser iterates over a ReadableStream.
async function* chunks(response: Response): AsyncGenerator<Uint8Array, void, void> {
  const reader = response.body?.getReader();
  if (reader === undefined) return;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}
