// corpus: exit_code = 1
console.log("never printed");
const = 5;
