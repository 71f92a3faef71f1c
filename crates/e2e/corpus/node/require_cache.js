// corpus: files = { "sibling.js" = "exports.name = module.id; exports.parent = module.parent && module.parent.id; exports.main = require.main.filename;" }
console.log(Object.keys(require.cache));
console.log(require("./sibling"), Object.keys(require.cache), module.children.map((child) => child.id));
delete require.cache[require.resolve("./sibling")];
console.log(require("./sibling") === require("./sibling"));
console.log(require("module").builtinModules.length > 30, require("module")._pathCache && Object.keys(require("module")._pathCache).length);
