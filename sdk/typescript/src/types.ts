/**
 * The objects of the API, with its field names (`/openapi.json` of a server). Times are in milliseconds (`_ms`) or
 * microseconds (`_us`), sizes in bytes. A later server may send further fields, and further values of a union.
 */

export type Status = "pending" | "running" | "done" | "error";

export type Cause =
  | "exit"
  | "signal"
  | "wall_time"
  | "cpu_time"
  | "memory"
  | "output_limit"
  | "disk"
  | "processes"
  | "guest_panic"
  | "cancelled"
  | "infrastructure";

export type StageName = "compile" | "run";
export type StreamName = "stdout" | "stderr";

/** Bytes as the API has them: text, or base64 where they are not UTF-8. */
export type Data = string | { base64: string };

// Requests

/** A file in the work directory. `path` is relative to it, `mode` has the permission bits (0o644). */
export interface InputFile {
  path: string;
  content: string | Uint8Array;
  mode?: number;
}

/** Limits of the compile stage. */
export interface CompileLimits {
  wall_time_ms?: number;
  cpu_time_ms?: number;
  processes?: number;
  open_files?: number;
  file_bytes?: number;
  stack_bytes?: number;
}

/** Limits of an execution. The server's defaults are used for those that are absent. */
export interface Limits {
  wall_time_ms?: number;
  cpu_time_ms?: number;
  memory_bytes?: number;
  vcpus?: number;
  output_bytes?: number;
  artifact_bytes?: number;
  disk_bytes?: number;
  processes?: number;
  open_files?: number;
  file_bytes?: number;
  stack_bytes?: number;
  compile?: CompileLimits;
}

/** Standard input that stays open while the program runs. */
export interface Interactive {
  /** The program has a terminal of this size, 1 to 1000 each; else it has pipes. */
  terminal?: { columns: number; rows: number };
}

/** The options of an execution, besides its language and code. */
export interface RunOptions {
  version?: string;
  entrypoint?: string;
  file_name?: string;
  compile_options?: readonly string[];
  /** An object of paths and contents, or a list of files. */
  files?: Readonly<Record<string, string | Uint8Array>> | readonly InputFile[];
  stdin?: string | Uint8Array;
  /** For `submit` and `Job.attach`. */
  interactive?: Interactive;
  args?: readonly string[];
  env?: Readonly<Record<string, string>>;
  /** Variables whose values are neither stored nor logged. */
  secrets?: Readonly<Record<string, string>>;
  network?: boolean;
  user?: string;
  unconfined?: boolean;
  limits?: Limits;
  /** Patterns of files that are part of the result. */
  artifacts?: readonly string[];
  on_output_limit?: "continue" | "kill";
  labels?: Readonly<Record<string, string>>;
  start?: "cold" | "fork";
}

/** Options of the request itself. */
export interface CallOptions {
  /** Aborts the request. An execution that is waited for is cancelled. */
  signal?: AbortSignal;
}

/** Options of a request that starts an execution. */
export interface StartOptions extends CallOptions {
  /** Names the request: a server runs it once however often it is sent. Without it each call has a new one. */
  idempotencyKey?: string;
}

/** The options of a durable execution. */
export interface SubmitOptions extends RunOptions {
  /** Gets the result in a POST request. */
  callback_url?: string;
}

// Results

/** The two output streams, as text (invalid UTF-8 is replaced by U+FFFD) and as the exact bytes. */
export interface OutputText {
  stdout: string;
  stderr: string;
  readonly stdout_bytes: Uint8Array;
  readonly stderr_bytes: Uint8Array;
}

/** Measurements of a stage. Here `stdout_bytes` and `stderr_bytes` are numbers of bytes written. */
export interface StageResult {
  cause: Cause;
  exit_code: number | null;
  signal: number | null;
  wall_time_us: number;
  cpu_time_us: number;
  peak_memory_bytes: number;
  stdout_bytes: number;
  stdout_dropped: number;
  stderr_bytes: number;
  stderr_dropped: number;
  warm?: boolean;
  message?: string;
}

/** The compile stage with its output. */
export interface CompileReport extends OutputText {
  result: StageResult;
  /** Another execution of the batch compiled the program. */
  shared?: boolean;
}

/** Durations of an execution's phases. */
export interface Timings {
  queue_us: number;
  start_us: number;
  identity_us: number;
  compile_us: number;
  run_us: number;
  collect_us: number;
  total_us: number;
}

/** A file that the program left. `Client.artifact` reads it. */
export interface Artifact {
  path: string;
  bytes: number;
  mode: number;
}

/** Dropped packets of one kind. */
export interface Denied {
  address?: string;
  port?: number;
  protocol: string;
  reason: "destination" | "port" | "rate" | "source" | "protocol" | "malformed";
  times: number;
}

/** Traffic that was denied. */
export interface NetworkReport {
  denied: Denied[];
  denied_others?: number;
}

/** The result of an execution. `exit_code` is the compiler's if that failed; `error` is set if `status` is `error`. */
export interface Execution extends OutputText {
  id: string;
  language: string;
  version?: string;
  image_digest?: string;
  status: Status;
  cause: Cause;
  exit_code: number | null;
  signal: number | null;
  compile?: CompileReport;
  run?: StageResult;
  timings: Timings;
  start: "cold" | "fork" | "pool";
  memory_bytes: number;
  ip?: string;
  network?: NetworkReport;
  artifacts?: Artifact[];
  artifacts_dropped?: number;
  labels?: Record<string, string>;
  created_ms: number;
  error?: string;
}

/** An execution without its output. */
export interface ExecutionSummary {
  id: string;
  status: Status;
  language: string;
  cause?: Cause;
  exit_code?: number;
  labels?: Record<string, string>;
  created_ms: number;
  finished_ms?: number;
}

/** A page of executions. */
export interface ExecutionList {
  executions: ExecutionSummary[];
  next_cursor?: string;
}

/** A language of the server. */
export interface LanguageInfo {
  name: string;
  aliases: string[];
  extensions: string[];
  image_ready: boolean;
  version?: string;
  image_digest?: string;
  image_age_s?: number;
}

/** What the executions of an API key used. */
export interface Usage {
  key: string;
  executions: number;
  vm_ms: number;
  cpu_ms: number;
  memory_mib_s: number;
}

// Events

/** An event of an execution. The output of a `result` is empty: it was sent as events. */
export type Event =
  | { event: "accepted"; id: string; interactive?: Interactive }
  | { event: "started"; stage: StageName }
  | { event: "output"; stage: StageName; stream: StreamName; text: string; data: Uint8Array }
  | { event: "dropped"; stage: StageName; stream: StreamName; bytes: number }
  /** The execution runs anew after a restart of the server: the events so far are void. */
  | { event: "restarted"; id: string }
  | { event: "result"; execution: Execution };
