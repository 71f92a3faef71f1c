/** The body of `POST /v1/executions`. */

import { encode } from "./data.js";
import type { InputFile, RunOptions, StartOptions, SubmitOptions } from "./types.js";

/** The JSON of the request, and the options of the call, which are not part of it. */
export function body(language: string, code: string, options: SubmitOptions & StartOptions): string {
  const { signal: _, idempotencyKey: __, files, stdin, ...rest } = options;
  return JSON.stringify({
    language,
    ...(code === "" ? {} : { code }),
    ...rest,
    ...(files === undefined ? {} : { files: list(files).map(file) }),
    ...(stdin === undefined ? {} : { stdin: encode(stdin) }),
  });
}

function list(files: NonNullable<RunOptions["files"]>): readonly InputFile[] {
  if (Array.isArray(files)) {
    return files;
  }
  return Object.entries(files as Record<string, string | Uint8Array>).map(([path, content]) => ({ path, content }));
}

function file({ path, content, mode }: InputFile): object {
  return { path, content: encode(content), ...(mode === undefined ? {} : { mode }) };
}
