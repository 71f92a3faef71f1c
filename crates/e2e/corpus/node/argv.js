{
// corpus: args = ["alpha", "two words", "", "é", "--inspect", "-e", "--", "$HOME"]
console.log(process.argv.length);
for (const argument of process.argv) console.log(JSON.stringify(argument));
}

{
console.log(process.execArgv, process.execPath, process.argv0, process.title);
console.log(process.allowedNodeEnvironmentFlags.has("--max-old-space-size"), process.config.variables !== undefined);
}
