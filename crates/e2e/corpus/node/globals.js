console.log(Object.keys(globalThis).sort());
console.log(Object.getOwnPropertyNames(globalThis).length, Reflect.ownKeys(globalThis).filter((key) => typeof key === "symbol"));
console.log(process.eventNames(), process.listenerCount("exit"), process.listenerCount("uncaughtException"), process.domain);
console.log(Object.keys(process.versions).length > 5, process.version, process.release.name, process.arch, process.platform);
// Sloppy mode, unless the program asks for strict mode.
undeclared = 5;
console.log(undeclared, globalThis.undeclared, (function () { return this === globalThis; })(), (function () { "use strict"; return this; })());
var top = 1;
console.log(globalThis.top, typeof window, 010, delete globalThis.undeclared);
