for (const stream of [process.stdout, process.stderr]) {
  console.log(stream.fd, stream.isTTY, stream.constructor.name, stream._type, stream.writable, stream.writableLength, stream.columns, stream.listenerCount("error"));
}
console.log(typeof process.stdin.setRawMode, process.stdout._isStdio, process.stdout.writableHighWaterMark);
process.stdout.end ? process.stdout.write("written\n", () => console.log("flushed")) : 0;
