/** Browsers have no Unix sockets. */

export function unixFetch(path: string): never {
  throw new RangeError(`unix:${path}: Unix sockets are reached from Node.js alone`);
}
