const controller = new AbortController();
controller.signal.addEventListener("abort", (event) => console.log(event.type, controller.signal.reason.name));
controller.abort();
console.log(new URL("../x?a=1", "http://h/p/q").href, new WebAssembly.Module(new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0])) instanceof WebAssembly.Module);
const channel = new MessageChannel();
channel.port1.on("message", async (message) => {
  console.log(message);
  channel.port1.close();
  console.log(await (await fetch("data:text/plain,hello")).text());
});
channel.port2.postMessage({ over: "a channel" });
