// The frames below a program, its own and those of the runtime.
console.log(new Error("top").stack);
(function named() {
  console.log(new Error("in a function").stack.split("\n").length, Error.stackTraceLimit, Error.prepareStackTrace);
})();
Error.prepareStackTrace = (error, frames) => frames.map((frame) => [frame.getFileName(), frame.getLineNumber(), frame.getFunctionName()]);
console.log(new Error("structured").stack);
delete Error.prepareStackTrace;
process.nextTick(() => console.log(new Error("tick").stack));
setImmediate(() => console.log(new Error("immediate").stack));
Promise.resolve().then(() => console.log(new Error("promise").stack));
console.trace("traced");
