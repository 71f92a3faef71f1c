// corpus: exit_code = 7
process.on("uncaughtException", (error, origin) => {
  console.log("caught", error.message, origin);
  throw new Error("from the handler");
});
throw new Error("first");
