// The playground in a browser, and what the cases do with it.

import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(new URL("../../../target/playground/package.json", import.meta.url));
export const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

export const url = process.env.CLOUDE_TEST_BACKEND;
assert.ok(url, "CLOUDE_TEST_BACKEND names the server; tools/tests/playground sets it");

/** Real VMs may be those of an emulated host, which is slow. */
export const PATIENCE_MS = process.env.CLOUDE_TEST_PROGRAMS === "fake" ? 30_000 : 300_000;

export function launch() {
    const found = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
    const executablePath = found.find((path) => path && existsSync(path));
    assert.ok(executablePath, "there is no Chromium: run tools/setup --for browser");
    return chromium.launch({ executablePath, args: ["--disable-dev-shm-usage"] });
}

/** The page of one case. It fails on an error of the page's scripts, and on whatever its policy refused. */
export class Playground {
    faults = [];
    requests = [];

    static async open(browser, { at = `${url}/`, ...options } = {}) {
        const context = await browser.newContext({ acceptDownloads: true, ...options });
        const made = new Playground();
        made.context = context;
        made.page = await context.newPage();
        made.page.setDefaultTimeout(PATIENCE_MS);
        made.page.on("pageerror", (error) => made.faults.push(`error: ${error.message}`));
        made.page.on("console", (message) => {
            if (/Content Security Policy|Trusted ?Type/i.test(message.text())) made.faults.push(message.text());
        });
        made.page.on("request", (request) => made.requests.push(request));
        await made.page.goto(at);
        return made;
    }

    get status() {
        return this.page.locator("#status");
    }

    get output() {
        return this.page.locator("#output");
    }

    /** Waits until the editor has a program. */
    async ready() {
        await this.page.locator("#run[aria-disabled=false]").waitFor();
    }

    async choose(language) {
        await this.page.selectOption("#language", language);
        // Off until the language is open.
        await this.ready();
    }

    /** Replaces the text of the shown file. */
    async type(code) {
        await this.page.locator("#editor .cm-content").click();
        await this.page.keyboard.press("ControlOrMeta+a");
        // Text in place of highlighted text would get an inline style from Chromium, which the policy refuses.
        await this.page.keyboard.press("Delete");
        await this.page.keyboard.insertText(code);
    }

    code() {
        return this.page.locator("#editor .cm-content").innerText();
    }

    async write({ language, code }) {
        await this.ready();
        await this.choose(language);
        await this.type(code);
    }

    async run() {
        await this.page.keyboard.press("ControlOrMeta+Enter");
    }

    /** Waits for a status that contains `text`. */
    async sees(text) {
        await this.page.waitForFunction(
            (wanted) => document.getElementById("status").textContent.includes(wanted),
            text,
        );
    }

    /** Runs a program and waits for its end. */
    async result(program) {
        await this.write(program);
        await this.run();
        await this.ended();
    }

    async ended() {
        await this.page.locator("#status:is([data-state=ok],[data-state=failed],[data-state=stopped])").waitFor();
    }

    /** Opens the dialog with the page's link, and returns the link. The page makes it before it shows the dialog. */
    async share() {
        await this.page.click("#share");
        await this.page.locator("#share-dialog[open]").waitFor();
        return await this.page.inputValue("#link");
    }

    /** Serious and critical findings of axe-core. */
    async accessibility() {
        // Through the debugger, which the page's policy does not bind.
        await this.page.evaluate(axe);
        const { violations } = await this.page.evaluate(() => globalThis.axe.run(document));
        const texts = violations.map(({ id, impact, nodes }) => {
            const where = nodes.map(({ target, failureSummary }) => `${target}: ${failureSummary}`);
            return `${impact}: ${id}: ${where.join("; ")}`;
        });
        return texts.filter((text) => /^(serious|critical)/.test(text));
    }

    async close() {
        await this.context.close();
        assert.deepEqual(this.faults, []);
    }
}
