// corpus: exit_code = 1
console.log("before");
require("./no-such-module");
