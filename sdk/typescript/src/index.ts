/**
 * Client of Cloude: runs code that nobody trusts in micro-VMs.
 *
 * @example
 * const client = new Client();
 * console.log((await client.run("python", "print(6 * 7)")).stdout);
 *
 * @module
 */

export { Attached, type WebSocketClass, type WebSocketLike } from "./attach.js";
export { Client, Job, type ClientOptions, type ListOptions } from "./client.js";
export {
  ApiError,
  BadRequest,
  CloudeError,
  Conflict,
  ConnectionFailed,
  Forbidden,
  IdempotencyConflict,
  NotFound,
  ProtocolError,
  QueueFull,
  QuotaExceeded,
  ServerError,
  TooLarge,
  TooManyRequests,
  Unauthorized,
  Unavailable,
  WaitTimeout,
} from "./errors.js";
export type * from "./types.js";
