{
console.log("%s is %d, %o, %j, %c.", "a", 4.5, [1], { j: 1 }, "css", "rest");
console.error("to standard error");
console.group("group");
console.log("indented");
console.groupEnd();
console.table([{ a: 1, b: 2 }, { a: 3 }]);
console.count(); console.count("named"); console.assert(false, "assertion"); console.dir({ a: { b: { c: { d: 1 } } } }, { depth: 0 });
console.log([undefined, null, -0, 10n, Symbol("s"), () => {}, class A {}, new Map([[1, { a: 2 }]]), new Error("e").message, new Proxy({}, {})]);
console.log(require("util").inspect("colour", { colors: true }), process.stdout.hasColors ? process.stdout.hasColors() : "no terminal");
}

{
console.log(Intl.DateTimeFormat().resolvedOptions().locale, (1234567.891).toLocaleString(), new Date(0).toLocaleDateString("en-GB", { timeZone: "UTC" }));
console.log(["z", "ä", "a"].sort(new Intl.Collator("de").compare), "I".toLocaleLowerCase("tr"), process.env.LANG, Intl.DateTimeFormat().resolvedOptions().timeZone);
}
