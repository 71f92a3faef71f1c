console.log(require.main === module, module.id, module.filename, module.loaded, module.parent, module.children.length);
console.log(module.paths, require.main.filename, module.path);
console.log(this === module.exports, this === exports, typeof globalThis.module, arguments.length);
console.log(Object.keys(require).sort(), Object.keys(require.extensions));
console.log(require.resolve.paths("x"), require.resolve.paths("./x"));
process.nextTick(() => console.log("later", module.loaded));
