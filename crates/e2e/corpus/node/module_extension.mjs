// The extension makes a module of a file, whatever its syntax.
// corpus: args = ["one"]
console.log(typeof require, typeof module, this === undefined, process.argv);
