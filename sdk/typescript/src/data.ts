/** Bytes in JSON: text, or base64 where they are not UTF-8. */

import { ProtocolError } from "./errors.js";
import type { CompileReport, Data, Event, Execution, OutputText } from "./types.js";

const CHUNK = 8192;

/** Text as it is, and bytes that are not UTF-8 in base64. */
export function encode(content: string | Uint8Array): Data {
  if (typeof content === "string") {
    return content;
  }
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(content);
  } catch {
    let binary = "";
    for (let at = 0; at < content.length; at += CHUNK) {
      binary += String.fromCharCode(...content.subarray(at, at + CHUNK));
    }
    return { base64: btoa(binary) };
  }
}

/** The bytes. */
export function decode(data: Data): Uint8Array {
  if (typeof data === "string") {
    return new TextEncoder().encode(data);
  }
  if (typeof data?.base64 !== "string") {
    throw new ProtocolError("the server's answer has neither text nor base64 where output is expected");
  }
  return Uint8Array.from(atob(data.base64), (letter) => letter.charCodeAt(0));
}

/** The bytes as text. Invalid UTF-8 is replaced by U+FFFD. */
export function text(data: Data): string {
  return typeof data === "string" ? data : new TextDecoder("utf-8", { ignoreBOM: true }).decode(decode(data));
}

/** The result of an execution from its JSON. */
export function execution(value: unknown): Execution {
  const wire = object(value, "id", "status", "stdout", "stderr");
  if (wire["compile"]) {
    wire["compile"] = withOutput(object(wire["compile"], "result", "stdout", "stderr")) as CompileReport;
  }
  return withOutput(wire) as Execution;
}

/** An event from its JSON; undefined for one that this version does not know. */
export function event(value: unknown): Event | undefined {
  const wire = object(value, "event");
  switch (wire["event"]) {
    case "output": {
      const data = wire["data"] as Data;
      return { ...wire, text: text(data), data: decode(data) } as Event;
    }
    case "result": {
      const { event, ...result } = wire;
      return { event: "result", execution: execution(result) };
    }
    case "accepted":
    case "started":
    case "dropped":
    case "restarted":
      return wire as unknown as Event;
    default:
      return undefined;
  }
}

/** A copy of a JSON object that has these fields. */
export function object(value: unknown, ...fields: string[]): Record<string, unknown> {
  const found = typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
  for (const field of fields) {
    if (!(field in found)) {
      throw new ProtocolError(`the server's answer lacks ${field}: is it a Cloude server of this version?`);
    }
  }
  return { ...found };
}

// The bytes are not enumerable, so that JSON.stringify and console.log show the text alone.
function withOutput(wire: Record<string, unknown>): OutputText {
  const { stdout, stderr } = wire as { stdout: Data; stderr: Data };
  return Object.defineProperties({ ...wire, stdout: text(stdout), stderr: text(stderr) }, {
    stdout_bytes: { get: () => decode(stdout) },
    stderr_bytes: { get: () => decode(stderr) },
  }) as unknown as OutputText;
}
