// `await` outside of a function is an error in a script.
// corpus: exit_code = 1
const value = await Promise.resolve(1);
