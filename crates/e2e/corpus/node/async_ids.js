// The asynchronous ids (async_hooks) at the program's first line.
const { executionAsyncId, triggerAsyncId, AsyncLocalStorage } = require("async_hooks");
console.log(executionAsyncId(), triggerAsyncId());
const storage = new AsyncLocalStorage();
console.log(storage.getStore());
storage.run("stored", () => setTimeout(() => console.log(storage.getStore()), 1));
