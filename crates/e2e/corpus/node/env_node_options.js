// The interpreter reads NODE_OPTIONS when it starts.
// corpus: env = { NODE_OPTIONS = "--stack-trace-limit=2 --no-warnings" }
// corpus: exit_code = 1
console.log(process.execArgv, process.env.NODE_OPTIONS, Error.stackTraceLimit);
throw new Error("two frames");
