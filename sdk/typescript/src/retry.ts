/**
 * When a request is sent again: after 429 and 503, and after a connection that failed or broke. Every request of this
 * package may be sent twice: POST requests have an Idempotency-Key.
 */

const FIRST_DELAY_MS = 500;
const LONGEST_DELAY_MS = 8000;
/** A server that asks for more patience than this gets an error thrown to the caller instead. */
const LONGEST_RETRY_AFTER_S = 60;

/** The retries of one request. */
export class Retries {
  #made = 0;

  constructor(readonly limit: number) {}

  /** Milliseconds to wait before the next attempt; undefined if there is none. */
  afterFailure(): number | undefined {
    if (this.#made >= this.limit) {
      return undefined;
    }
    const longest = Math.min(FIRST_DELAY_MS * 2 ** this.#made, LONGEST_DELAY_MS);
    this.#made += 1;
    // Jitter, so that clients of a restarted server do not come back all at once.
    return (longest * (1 + Math.random())) / 2;
  }

  /** Likewise after a response; undefined for a status that is final. */
  afterResponse(response: Response): number | undefined {
    if (response.status !== 429 && response.status !== 503) {
      return undefined;
    }
    const asked = retryAfter(response);
    if (asked !== undefined && asked > LONGEST_RETRY_AFTER_S) {
      return undefined;
    }
    const delay = this.afterFailure();
    return delay === undefined || asked === undefined ? delay : asked * 1000 * (1 + Math.random() / 10);
  }
}

/** Seconds of the header Retry-After, which has a number or a date (RFC 9110, section 10.2.3). */
export function retryAfter(response: Response): number | undefined {
  const text = response.headers.get("retry-after") ?? "";
  if (/^\d+$/.test(text)) {
    return Number(text);
  }
  const moment = /^[A-Z][a-z]+,? /.test(text) ? Date.parse(text) : NaN;
  return Number.isNaN(moment) ? undefined : Math.max(0, (moment - Date.now()) / 1000);
}

/** Replaced by tests. */
export const timing = {
  /** Waits; an abort of the signal ends it with the signal's reason. */
  sleep(ms: number, signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      signal?.throwIfAborted();
      const abort = () => {
        clearTimeout(timer);
        reject(signal?.reason);
      };
      const timer = setTimeout(() => {
        signal?.removeEventListener("abort", abort);
        resolve();
      }, ms);
      signal?.addEventListener("abort", abort, { once: true });
    });
  },
};
