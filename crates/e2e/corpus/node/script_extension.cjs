// The extension makes a script of a file.
console.log(typeof require, __filename, require.main === module, process.argv);
