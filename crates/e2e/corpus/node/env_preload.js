// corpus: env = { NODE_OPTIONS = "--require /work/before.js", NODE_PATH = "/work/library" }
// corpus: files = { "before.js" = "console.log('before', require.main === undefined, module.id, process.argv.length)", "library/helper.js" = "module.exports = 'from NODE_PATH'" }
console.log("main", require("helper"), Object.keys(require.cache));
