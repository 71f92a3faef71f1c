/** The WebSocket of a running execution: events come, and input goes. */

import type { Address } from "./connect.js";
import * as data from "./data.js";
import { ConnectionFailed, ProtocolError } from "./errors.js";
import { timing } from "./retry.js";
import type { CallOptions, Event, Execution } from "./types.js";

/** Bytes in one message. The server accepts 256 KiB. */
const PIECE = 65536;
/** `send` waits while more bytes than these are not sent yet. */
const MOST_WAITING = 4 * PIECE;
const PAUSE_MS = 10;

/** The constructor of the global WebSocket, or of the package `ws`. */
export type WebSocketClass = new (url: string, protocols: string[]) => WebSocketLike;

/** The part of a WebSocket that is used. */
export interface WebSocketLike {
  binaryType: string;
  readonly bufferedAmount: number;
  send(message: string | Uint8Array<ArrayBuffer>): void;
  close(): void;
  addEventListener(type: "open" | "error", listener: (event: unknown) => void): void;
  addEventListener(type: "message", listener: (event: { data: unknown }) => void): void;
  addEventListener(type: "close", listener: (event: { code: number; reason: string }) => void): void;
}

/** Connects to an execution. */
export async function attach(
  address: Address,
  key: string | undefined,
  id: string,
  chosen: WebSocketClass | undefined,
  options: CallOptions,
): Promise<Attached> {
  if (address.base === "http://localhost/" && address.shown.startsWith("unix:")) {
    throw new RangeError(`${address.shown}: attach works over http and https`);
  }
  const Socket = chosen ?? (globalThis as { WebSocket?: WebSocketClass }).WebSocket;
  if (Socket === undefined) {
    throw new TypeError("there is no global WebSocket (Node.js 22 has one): give the option WebSocket, as from `ws`");
  }
  options.signal?.throwIfAborted();
  const url = `${address.base.replace(/^http/, "ws")}v1/executions/${encodeURIComponent(id)}/attach`;
  // The key is a subprotocol, because browsers send no other headers.
  const socket = new Socket(url, ["cloude.v1", ...(key === undefined ? [] : [`cloude.key.${key}`])]);
  const attached = new Attached(socket, address.shown);
  options.signal?.addEventListener("abort", () => attached.close(), { once: true });
  await attached.opened();
  return attached;
}

/** A connection to a running execution. Closing it does not end the program. */
export class Attached implements AsyncIterable<Event> {
  readonly #socket: WebSocketLike;
  readonly #shown: string;
  readonly #events: Event[] = [];
  #failure: Error | undefined;
  #isOpen = false;
  #ended = false;
  #changed: () => void = () => undefined;

  /** @internal `Job.attach` makes it. */
  constructor(socket: WebSocketLike, shown: string) {
    this.#socket = socket;
    this.#shown = shown;
    socket.binaryType = "arraybuffer";
    socket.addEventListener("open", () => {
      this.#isOpen = true;
      this.#changed();
    });
    socket.addEventListener("message", (message) => {
      try {
        const event = data.event(JSON.parse(String(message.data)));
        if (event !== undefined) this.#events.push(event);
      } catch (error) {
        const shown = error instanceof Error ? error.message : String(error);
        this.#fail(new ProtocolError(`an event is not one of this API: ${shown}`, { cause: error }));
      }
      this.#changed();
    });
    // The event `close` follows, and the error has no reason in browsers.
    socket.addEventListener("error", () => undefined);
    socket.addEventListener("close", ({ code, reason }) => {
      this.#fail(new ConnectionFailed(`${shown}: ${reason || `the connection was closed (${code})`}`));
    });
  }

  /** @internal */
  async opened(): Promise<void> {
    while (!this.#isOpen) {
      if (this.#failure !== undefined) throw this.#failure;
      await this.#change();
    }
  }

  /** All events from the first one; the connection is closed when the loop is left. */
  async *[Symbol.asyncIterator](): AsyncGenerator<Event, void, void> {
    try {
      for (;;) {
        const event = this.#events.shift();
        if (event !== undefined) {
          this.#ended = event.event === "result";
          yield event;
          if (this.#ended) return;
        } else if (this.#failure !== undefined) {
          throw this.#failure;
        } else {
          await this.#change();
        }
      }
    } finally {
      this.close();
    }
  }

  /** The result without its output, which the events have. Reads the remaining events. */
  async wait(): Promise<Execution> {
    for await (const event of this) {
      if (event.event === "result") return event.execution;
    }
    throw new ConnectionFailed(`${this.#shown}: the connection ended before the result`);
  }

  /** Sends bytes for standard input, or text as UTF-8. Waits while the program reads too slowly. */
  async send(content: string | Uint8Array): Promise<void> {
    const bytes = Uint8Array.from(typeof content === "string" ? new TextEncoder().encode(content) : content);
    for (let at = 0; at < bytes.length; at += PIECE) {
      while (this.#socket.bufferedAmount > MOST_WAITING && this.#failure === undefined) {
        await timing.sleep(PAUSE_MS, undefined);
      }
      this.#send(bytes.slice(at, at + PIECE));
    }
  }

  /** Closes standard input; a terminal gets its end-of-file character. */
  closeStdin(): void {
    this.#send(JSON.stringify({ close_stdin: true }));
  }

  /** Sends a signal, such as `INT`, to the program's process group. */
  signal(name: string | number): void {
    this.#send(JSON.stringify({ signal: name }));
  }

  /** Changes the size of the terminal. */
  resize(columns: number, rows: number): void {
    this.#send(JSON.stringify({ resize: { columns, rows } }));
  }

  /** Closes the connection. The program goes on. */
  close(): void {
    this.#socket.close();
  }

  #send(message: string | Uint8Array<ArrayBuffer>): void {
    const isOver = this.#ended || this.#events.at(-1)?.event === "result";
    if (isOver) return;
    if (this.#failure !== undefined) throw this.#failure;
    this.#socket.send(message);
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    this.#changed();
  }

  #change(): Promise<void> {
    return new Promise((resolve) => {
      this.#changed = resolve;
    });
  }
}
