// corpus: files = { "part.mjs" = "export const name = 'part'; export default import.meta.url; export const cjs = typeof require;", "common.cjs" = "exports.value = 5;" }
(async () => {
  const part = await import("./part.mjs");
  console.log(part.name, part.default, part.cjs);
  console.log((await import("node:path")).basename("/a/b"), (await import("./common.cjs")).default);
  console.log((await import("data:text/javascript,export default 7")).default);
  await import("./missing.mjs").catch((error) => console.log(error.code));
  console.log(await import("./main.js").then((main) => Object.keys(main)));
})();
exports.own = 1;
