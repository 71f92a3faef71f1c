// corpus: exit_code = 1
// corpus: files = { "broken.mjs" = "export const a = 1;\nthrow new Error('while loading');\n" }
import("./broken.mjs").then(() => console.log("never"));
