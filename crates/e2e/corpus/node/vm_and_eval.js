const vm = require("vm");
var local = "local";
console.log(eval("local"), (0, eval)("typeof local"), new Function("return typeof require")(), vm.runInThisContext("typeof module"));
console.log(vm.runInNewContext("x + 1", { x: 2 }), vm.isContext({}));
try { vm.runInThisContext("throw new Error('made up')", { filename: "made-up.js" }); } catch (error) { console.log(error.stack.split("\n").slice(0, 2)); }
try { vm.runInThisContext("while (true);", { timeout: 50 }); } catch (error) { console.log(error.code); }
let depth = 0;
function down() {
  depth++;
  down();
}
try {
  down();
} catch (error) {
  console.log(error.name, error.message, depth > 5000);
}
