// corpus: files = { "data.json" = "{\"a\": [1, 2]}", "folder/index.js" = "module.exports = __filename", "node_modules/dependency/package.json" = "{\"main\": \"lib.js\"}", "node_modules/dependency/lib.js" = "module.exports = module.paths.length + ' ' + require.resolve('dependency')", "one.js" = "exports.done = false; exports.other = require('./two'); exports.done = true;", "two.js" = "exports.seen = require('./one').done;" }
console.log(require("./data"), require("./folder"), require("dependency"), require("./one"));
console.log(require("node:fs") === require("fs"), require("./main") === module.exports);
console.log(module.children.map((child) => child.id));
