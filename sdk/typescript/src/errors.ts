/** Errors. Each is a `CloudeError`; each refusal of the server is an `ApiError` of the class of its kind. */

/** Base of all errors of this package. */
export class CloudeError extends Error {
  override get name(): string {
    return this.constructor.name;
  }
}

/** The server cannot be reached, or the connection broke and retries did not help. */
export class ConnectionFailed extends CloudeError {}

/** A response that is not one of this API. */
export class ProtocolError extends CloudeError {}

/** The execution had not ended within the time-out of `wait`. It goes on. */
export class WaitTimeout extends CloudeError {}

/** A problem document (RFC 9457). */
export interface Problem {
  type?: string;
  title?: string;
  detail?: string;
  field?: string;
  retry_after_s?: number;
}

/** The server refused a request. */
export class ApiError extends CloudeError {
  /** The HTTP status. */
  readonly status: number;
  /** The error and the way out. */
  readonly detail: string;
  /** The kind of error. */
  readonly type: string;
  readonly title: string;
  /** The field of the request that is wrong. */
  readonly field: string | undefined;
  /** Seconds after which a retry may succeed. */
  readonly retryAfterS: number | undefined;

  constructor(status: number, problem: Problem) {
    const detail = problem.detail || problem.title || "no reason was given";
    super(problem.field ? `${status}: ${problem.field}: ${detail}` : `${status}: ${detail}`);
    this.status = status;
    this.detail = detail;
    this.type = problem.type ?? "about:blank";
    this.title = problem.title ?? "";
    this.field = problem.field;
    this.retryAfterS = problem.retry_after_s;
  }
}

/** 400: the request is invalid; `field` names the wrong field. */
export class BadRequest extends ApiError {}
/** 401: no API key where one is required, or an unknown, expired or revoked one. */
export class Unauthorized extends ApiError {}
/** 403: the API key lacks a scope. */
export class Forbidden extends ApiError {}
/** 404: no such execution or artifact. */
export class NotFound extends ApiError {}
/** 409: the request does not fit the state of the object. */
export class Conflict extends ApiError {}
/** 413: the request is larger than the server allows. */
export class TooLarge extends ApiError {}
/** 422: another request had this idempotency key. */
export class IdempotencyConflict extends ApiError {}
/** 429: the queue is full or a quota is used up, and retries did not help. */
export class TooManyRequests extends ApiError {}
/** 429: a quota of the API key is used up; `detail` names it. */
export class QuotaExceeded extends TooManyRequests {}
/** 429: as many executions wait as the server allows. */
export class QueueFull extends TooManyRequests {}
/** 500 and above: the server failed. */
export class ServerError extends ApiError {}
/** 503: the server is stopping or overloaded, and retries did not help. */
export class Unavailable extends ServerError {}

const BY_STATUS = new Map<number, typeof ApiError>([
  [400, BadRequest],
  [401, Unauthorized],
  [403, Forbidden],
  [404, NotFound],
  [409, Conflict],
  [413, TooLarge],
  [422, IdempotencyConflict],
  [429, TooManyRequests],
  [503, Unavailable],
]);
const BY_TYPE = new Map<unknown, typeof ApiError>([
  ["/problems/quota", QuotaExceeded],
  ["/problems/queue-full", QueueFull],
]);

/** The error of a response: a problem document, or whatever a proxy answered instead. */
export function refusal(status: number, body: string, retryAfterS: number | undefined): ApiError {
  let problem: Problem & { error?: string };
  try {
    problem = JSON.parse(body);
  } catch {
    problem = { detail: body.slice(0, 200).trim() };
  }
  if (typeof problem !== "object" || problem === null) {
    problem = { detail: body.slice(0, 200).trim() };
  }
  const Kind = BY_TYPE.get(problem.type) ?? BY_STATUS.get(status) ?? (status >= 500 ? ServerError : ApiError);
  const { error, ...rest } = problem;
  return new Kind(status, {
    ...(error === undefined ? {} : { detail: error }),
    ...(retryAfterS === undefined ? {} : { retry_after_s: retryAfterS }),
    ...rest,
  });
}
