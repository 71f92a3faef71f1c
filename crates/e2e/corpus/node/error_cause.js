// corpus: exit_code = 1
const error = new Error("outer", { cause: new RangeError("inner") });
error.code = "CODE";
error.extra = { more: true };
throw error;
