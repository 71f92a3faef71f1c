/** Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html), resumed by their ids. */

import { event } from "./data.js";
import { ProtocolError } from "./errors.js";
import type { Event } from "./types.js";

/** The events of one execution, over any number of connections. */
export class EventReader {
  ended = false;
  reconnectAfterMs = 0;
  #lastId = "";
  #id = "";
  #rest = "";
  #data: string[] = [];
  #decoder = new TextDecoder();

  /** Forgets an incomplete event, and returns the headers of the next connection. */
  connect(): Record<string, string> {
    this.#rest = "";
    this.#data = [];
    this.#id = this.#lastId;
    this.#decoder = new TextDecoder();
    return { accept: "text/event-stream", ...(this.#lastId === "" ? {} : { "last-event-id": this.#lastId }) };
  }

  /** The events that these bytes complete. */
  feed(chunk: Uint8Array): Event[] {
    const lines = (this.#rest + this.#decoder.decode(chunk, { stream: true })).split("\n");
    this.#rest = lines.pop() ?? "";
    const events = lines.map((line) => this.#line(line.replace(/\r$/, ""))).filter((found) => found !== undefined);
    this.ended ||= events.some((found) => found.event === "result");
    return events;
  }

  #line(line: string): Event | undefined {
    if (line === "") {
      return this.#dispatch();
    }
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "data") {
      this.#data.push(value);
    } else if (name === "id" && !value.includes("\0")) {
      this.#id = value;
    } else if (name === "retry" && /^\d+$/.test(value)) {
      this.reconnectAfterMs = Number(value);
    }
    return undefined;
  }

  #dispatch(): Event | undefined {
    const data = this.#data.join("\n");
    this.#data = [];
    this.#lastId = this.#id;
    if (data === "") {
      return undefined;
    }
    let json: unknown;
    try {
      json = JSON.parse(data);
    } catch (error) {
      throw new ProtocolError(`an event is not JSON: ${data.slice(0, 80)}`, { cause: error });
    }
    return event(json);
  }
}
