// corpus: exit_code = 1
function outer() {
  inner();
}
function inner() {
  throw new TypeError("a message");
}
console.log("before");
outer();
