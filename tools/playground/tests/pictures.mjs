// pictures.mjs FOLDER: pictures of the page, from a server that runs programs. Each is a PNG of 256 colours if
// pngquant is there.

import { execFileSync } from "node:child_process";
import { statSync } from "node:fs";

import { Playground, launch } from "./page.mjs";
import { programs } from "./programs.mjs";

const folder = process.argv[2];
const DESKTOP = { viewport: { width: 1200, height: 760 } };
const PHONE = { viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true };

const COUNT = `import time

for step in range(1, 4):
    print("step", step, flush=True)
    time.sleep(0.2)
print("waiting for the rest of the data …", flush=True)
time.sleep(600)
`;
const FAILED = `import sys

prices = {"tea": 3, "coffee": 4}

def total(order):
    return sum(prices[item] for item in order)

print("tea and coffee:", total(["tea", "coffee"]))
print("checking the menu", file=sys.stderr)
print("cocoa:", total(["cocoa"]))
`;
const STDIN = `import sys

for line in sys.stdin:
    name, *marks = line.split()
    average = sum(map(float, marks)) / len(marks)
    print(f"{name:10} {average:5.2f}")
print("rounded to", *sys.argv[1:])
`;
const COMPILED = `#include <stdio.h>

static long fibonacci(int n) {
    return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}

int main(void) {
    for (int n = 10; n <= 30; n += 10)
        printf("fibonacci(%d) = %ld\\n", n, fibonacci(n));
}
`;

const browser = await launch();

async function picture(name, options, steps) {
    const playground = await Playground.open(browser, options);
    await playground.ready();
    await steps(playground, playground.page);
    // Not the caret.
    await playground.page.locator("#run").focus();
    const path = `${folder}/${name}.png`;
    await playground.page.screenshot({ path, fullPage: options === PHONE, animations: "disabled" });
    try {
        execFileSync("pngquant", ["--force", "--output", path, "--strip", "--speed", "1", path]);
    } catch (error) {
        if (error.code !== "ENOENT") throw error;
    }
    console.log(`${path}: ${statSync(path).size} bytes`);
    await playground.close();
}

async function program(playground, code, { language = "python", stdin = "", args = "", artifacts = "" } = {}) {
    await playground.write({ language, code });
    await playground.page.fill("#stdin", stdin);
    await playground.page.fill("#args", args);
    await playground.page.fill("#artifact-patterns", artifacts);
    await playground.run();
}

await picture("running", DESKTOP, async (playground, page) => {
    await program(playground, COUNT);
    await playground.output.getByText("waiting for").waitFor();
    // The server cancels it when the page is closed.
});
await picture("failed", DESKTOP, async (playground) => {
    await program(playground, FAILED);
    await playground.ended();
});
await picture("artifact", DESKTOP, async (playground, page) => {
    await program(playground, programs.picture.code, { artifacts: "*.png\n*.txt" });
    await playground.ended();
    await page.locator("#artifacts img").scrollIntoViewIfNeeded();
    await page.waitForFunction(() => document.querySelector("#artifacts img").naturalWidth > 0);
});
await picture("stdin", DESKTOP, async (playground) => {
    await program(playground, STDIN, { stdin: "ada 1.0 1.3\ngrace 1.7 1.0\n", args: "two\ndigits" });
    await playground.ended();
});
await picture("dark", { ...DESKTOP, colorScheme: "dark" }, async (playground) => {
    await program(playground, COMPILED, { language: "c" });
    await playground.ended();
});
await picture("phone", PHONE, async (playground) => {
    await program(playground, FAILED);
    await playground.ended();
});
await browser.close();
