// The page's own parts: files, links, keys, keyboard, themes, small screens.

import assert from "node:assert/strict";
import { test } from "node:test";

import { browser, onPage } from "./cases.mjs";
import { Playground, url } from "./page.mjs";
import { programs } from "./programs.mjs";

/** The body of the next execution, which the server does not get. */
async function sent(playground) {
    const { page } = playground;
    const asked = page.waitForRequest((request) => request.method() === "POST");
    await page.route("**/v1/executions", (route) => route.abort());
    await playground.run();
    return (await asked).postDataJSON();
}

onPage("the example of a language is its self-test", async (playground, page) => {
    await playground.ready();
    await playground.choose("python");
    assert.match(await playground.code(), /sum of stdin/);
    assert.equal(await page.inputValue("#stdin"), "3\n4\n5\n");
    assert.equal(await page.inputValue("#args"), "alpha\ntwo words\né");
    await playground.choose("c");
    assert.match(await playground.code(), /#include <stdio.h>/);
    assert.equal(await page.locator("#tabs [role=tab]").innerText(), "main.c");
    await playground.type("other");
    page.once("dialog", (dialog) => dialog.accept());
    await page.click("#restore");
    await page.locator("#editor", { hasText: "#include <stdio.h>" }).waitFor();
    await page.reload();
    await playground.ready();
    assert.equal(await page.inputValue("#language"), "c");
    assert.match(await playground.code(), /#include <stdio.h>/);
});

onPage("code is highlighted", async (playground, page) => {
    await playground.write({ language: "python", code: "def x(): pass  # y" });
    const colour = (text) =>
        page.locator("#editor .cm-line span", { hasText: text }).first().evaluate((node) => getComputedStyle(node).color);
    await page.locator("#editor .cm-line span", { hasText: "def" }).first().waitFor();
    assert.notEqual(await colour("def"), await colour("# y"));
});

onPage("languages without an image are off, with the reason", async (playground, page) => {
    await playground.ready();
    const options = await page.locator("#language option").evaluateAll((all) =>
        all.map(({ value, text, disabled }) => ({ value, text, disabled })),
    );
    const off = options.filter(({ disabled }) => disabled);
    assert.ok(options.length >= 20 && off.length > 0);
    for (const { value, text } of off) assert.equal(text, `${value}: no image on this server`);
    const python = options.find(({ value }) => value === "python");
    assert.match(python.text, /^python \(Python \d/);
});

onPage("files are added, renamed, uploaded and removed", async (playground, page) => {
    await playground.write(programs.hello);
    await page.click("#add-file");
    await page.fill("#name", "../x");
    await page.keyboard.press("Enter");
    assert.match(await page.locator("#name-error").innerText(), /No part/);
    await page.fill("#name", "data/a.txt");
    await page.keyboard.press("Enter");
    await page.locator("[role=tab][aria-selected=true]", { hasText: "data/a.txt" }).waitFor();
    await playground.type("content of a");
    await page.click("#rename-file");
    await page.fill("#name", "data/b.txt");
    await page.keyboard.press("Enter");
    await page.locator("[role=tab][aria-selected=true]", { hasText: "data/b.txt" }).waitFor();
    await page.setInputFiles("#upload-input", [
        { name: "text.csv", mimeType: "text/csv", buffer: Buffer.from("é,1\n") },
        { name: "bytes.bin", mimeType: "application/octet-stream", buffer: Buffer.from([255, 0, 1]) },
        { name: "gone.txt", mimeType: "text/plain", buffer: Buffer.from("x") },
    ]);
    page.once("dialog", (dialog) => dialog.accept());
    await page.click("[role=tab]:has-text('gone.txt')");
    await page.click("#remove-file");
    await page.click("[role=tab]:has-text('bytes.bin')");
    assert.equal(await page.locator("#binary").innerText(), "bytes.bin is not text: 3 B.");
    const { code, files } = await sent(playground);
    assert.equal(code, programs.hello.code);
    assert.deepEqual(files, [
        { path: "data/b.txt", content: "content of a" },
        { path: "text.csv", content: "é,1\n" },
        { path: "bytes.bin", content: { base64: "/wAB" } },
    ]);
});

onPage("a reload keeps each language's program", async (playground, page) => {
    await playground.write({ language: "c", code: "first" });
    await playground.write({ language: "python", code: "second" });
    await page.fill("#stdin", "kept");
    await page.reload();
    await playground.ready();
    assert.equal(await page.inputValue("#language"), "python");
    assert.equal(await playground.code(), "second");
    assert.equal(await page.inputValue("#stdin"), "kept");
    await playground.choose("c");
    assert.equal(await playground.code(), "first");
});

onPage("a link carries the program and sends nothing of it", async (playground, page) => {
    const secret = "print('shared é €') # by link";
    await playground.write({ language: "python", code: secret });
    await page.fill("#args", "a\nb");
    await page.fill("#artifact-patterns", "*.png");
    await page.setInputFiles("#upload-input", { name: "d.bin", mimeType: "x/y", buffer: Buffer.from([255, 254]) });
    await page.locator("[role=tab]:has-text('d.bin')").waitFor();
    const shared = await playground.share();
    assert.ok(shared.startsWith(`${url}/#1.`));

    const other = await Playground.open(browser, { at: shared });
    await other.ready();
    assert.equal(await other.code(), secret);
    assert.equal(await other.page.inputValue("#args"), "a\nb");
    assert.equal(new URL(other.page.url()).hash, "");
    assert.equal(await other.status.textContent(), "Not run yet.");
    for (const request of other.requests) {
        assert.equal(request.method(), "GET");
        assert.ok(!request.url().includes("#"), request.url());
    }
    const { code, args, artifacts, files } = await sent(other);
    assert.deepEqual({ code, args, artifacts }, { code: secret, args: ["a", "b"], artifacts: ["*.png"] });
    assert.deepEqual(files, [{ path: "d.bin", content: { base64: "//4=" } }]);
    await other.close();
});

for (const [name, fragment] of [
    ["of an unknown version", "#9.abc"],
    ["that is no base64", "#1.%%%"],
    ["that does not unpack", "#1.AAAA"],
]) {
    onPage(
        `a link ${name} is refused in words`,
        async (playground, page) => {
            await playground.ready();
            assert.match(await page.locator("#notice").innerText(), /^The link's program cannot be read: /);
        },
        { at: `${url}/${fragment}` },
    );
}

const locked = process.env.CLOUDE_TEST_LOCKED;
test("a server that requires a key gets it, and no link does", { skip: !locked && "needs CLOUDE_TEST_LOCKED" }, async () => {
    const key = process.env.CLOUDE_TEST_KEY;
    const playground = await Playground.open(browser, { at: `${locked}/` });
    const { page } = playground;
    const dialog = page.locator("#key-dialog[open]");
    await dialog.waitFor();
    assert.match(await page.locator("#key-reason").innerText(), /requires an API key/);
    await page.fill("#key", "cloude_000000000000_wrong");
    await page.keyboard.press("Enter");
    await page.locator("#key-reason", { hasText: "not one of this server's keys" }).waitFor();
    await page.fill("#key", key);
    await page.keyboard.press("Enter");
    await playground.result(programs.hello);
    assert.equal(await playground.status.textContent(), "The program exited with code 0.");

    const link = await playground.share();
    const unpacked = await page.evaluate(
        async (fragment) => JSON.stringify(await (await import("/playground/link.js")).decode(fragment)),
        new URL(link).hash,
    );
    assert.ok(unpacked.includes(programs.hello.code.slice(0, 5)) && !unpacked.includes(key));
    await page.keyboard.press("Escape");
    const stored = await page.evaluate(() => JSON.stringify(localStorage));
    assert.ok(!stored.includes(key));
    assert.ok(playground.requests.every((request) => !request.url().includes(key)));

    await page.reload();
    await playground.ready();
    assert.equal(await page.locator("#open-key").innerText(), "API key: set");
    await page.click("#open-key");
    await page.click("#forget-key");
    await page.reload();
    await dialog.waitFor();
    await playground.close();
});

onPage("the keyboard alone reaches and does everything", async (playground, page) => {
    await playground.ready();
    const focused = () =>
        page.evaluate(() => {
            const { activeElement } = document;
            return activeElement.id || activeElement.getAttribute("role") || activeElement.textContent;
        });
    const reached = [];
    for (let count = 0; count < 40; count += 1) {
        await page.keyboard.press("Tab");
        const at = await focused();
        if (at === "editor") {
            // Tab indents here. Escape and then Tab leaves.
            await page.keyboard.press("ControlOrMeta+a");
            await page.keyboard.press("Delete");
            await page.keyboard.insertText(programs.hello.code);
            await page.keyboard.press("Escape");
        }
        if (reached.includes(at)) break;
        reached.push(at);
    }
    for (const id of ["language", "run", "stop", "share", "open-key", "theme", "tab-0", "add-file", "upload", "editor", "stdin",
        "args", "artifact-patterns", "output"]) {
        assert.ok(reached.includes(id), `${id} is not among ${reached}`);
    }
    await playground.choose("python");
    await playground.run();
    await playground.ended();
    assert.equal(await playground.status.textContent(), "The program exited with code 0.");

    // Tabs: arrows.
    await page.focus("#add-file");
    await page.keyboard.press("Enter");
    await page.keyboard.type("a.txt");
    await page.keyboard.press("Enter");
    await page.locator("[role=tab]:has-text('a.txt')").waitFor();
    await page.focus("[role=tab][aria-selected=true]");
    await page.keyboard.press("ArrowLeft");
    assert.equal(await focused(), "tab-0");

    // A run and a stop, without the mouse.
    await playground.type(programs.hold.code);
    await playground.run();
    await playground.output.getByText("held").waitFor();
    await page.keyboard.press("ControlOrMeta+.");
    await playground.sees("was stopped");
});

function background(page) {
    return page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);
}

onPage(
    "the theme is the system's until one is chosen",
    async (playground, page) => {
        await playground.ready();
        const dark = await background(page);
        await page.selectOption("#theme", "light");
        const light = await background(page);
        assert.notEqual(dark, light);
        await page.reload();
        assert.equal(await background(page), light);
        assert.equal(await page.inputValue("#theme"), "light");
        await page.selectOption("#theme", "");
        assert.equal(await background(page), dark);
        await page.emulateMedia({ colorScheme: "light" });
        assert.equal(await background(page), light);
    },
    { colorScheme: "dark" },
);

onPage(
    "a phone shows all without scrolling sideways",
    async (playground, page) => {
        await playground.result(programs.hello);
        const widths = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
        assert.ok(widths[0] <= widths[1], `${widths}`);
        for (const id of ["run", "editor", "stdin", "output", "timings"]) {
            const box = await page.locator(`#${id}`).boundingBox();
            assert.ok(box.x >= 0 && box.x + box.width <= widths[1], `${id}: ${JSON.stringify(box)}`);
        }
    },
    { viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true },
);

onPage("a result moves nothing above it", async (playground, page) => {
    await playground.write(programs.hello);
    const places = () =>
        page.evaluate(() => ["editor", "status", "output", "run"].map((id) => document.getElementById(id).getBoundingClientRect().top));
    const before = await places();
    await playground.run();
    await playground.ended();
    assert.deepEqual(await places(), before);
});

for (const colorScheme of ["light", "dark"]) {
    onPage(
        `axe-core finds nothing serious in ${colorScheme}`,
        async (playground, page) => {
            assert.deepEqual(await playground.accessibility(), [], "at the start");
            await playground.result(programs.failed);
            assert.deepEqual(await playground.accessibility(), [], "after a failure");
            await playground.write(programs.picture);
            await page.fill("#artifact-patterns", "*");
            await playground.run();
            await page.locator("#artifacts img").waitFor();
            assert.deepEqual(await playground.accessibility(), [], "with a picture");
            for (const button of ["add-file", "share", "open-key"]) {
                await page.click(`#${button}`);
                assert.deepEqual(await playground.accessibility(), [], button);
                await page.keyboard.press("Escape");
            }
            // Trusted Types refuse markup that axe-core itself makes.
            playground.faults = playground.faults.filter((fault) => !fault.includes("Trusted"));
        },
        { colorScheme },
    );
}
