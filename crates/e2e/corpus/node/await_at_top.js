// `await` outside of a function makes a module of a file.
const value = await Promise.resolve(1);
console.log(value, typeof require, typeof module);
