// Programs and their results.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";

import { browser, onPage } from "./cases.mjs";
import { Playground, url } from "./page.mjs";
import { isFake, printing, programs } from "./programs.mjs";

onPage("a program runs, and its result has its measurements", async (playground, page) => {
    await playground.result(programs.hello);
    assert.equal(await playground.status.textContent(), "The program exited with code 0.");
    assert.match(await playground.output.innerText(), /stdout\s+hello/);
    assert.match(await page.locator("#facts").innerText(), /CPU time[^]*Peak memory[^]*Started\s+20..-..-..T..:..:...*Z/);
    const names = await page.locator("#timings tbody th").allInnerTexts();
    assert.deepEqual(names, ["Queue", "Start the VM", "Identity", "Compile", "Run", "Collect artifacts", "Other", "Total"]);
    assert.match(await page.locator("#timings tbody tr:last-child td").first().innerText(), /^[\d.]+ (µs|ms|s)$/);
});

onPage("output is shown while the program runs, and a stop ends it", async (playground) => {
    await playground.write(programs.hold);
    await playground.run();
    await playground.output.getByText("held").waitFor();
    assert.equal(await playground.status.textContent(), "Running…");
    await playground.page.click("#stop");
    await playground.ended();
    assert.equal(await playground.status.textContent(), "The program was stopped: cancelled by a request to delete the execution.");
    assert.match(await playground.output.innerText(), /held/);
});

onPage("a failure has its exit code, and stderr its name", async (playground, page) => {
    await playground.result(programs.failed);
    assert.equal(await playground.status.textContent(), "The program exited with code 3.");
    assert.equal(await playground.status.getAttribute("data-state"), "failed");
    const segment = page.locator(".segment[data-kind='run stderr']");
    assert.equal(await segment.locator(".name").textContent(), "stderr");
    assert.equal(await segment.locator("pre").textContent(), "bye\n");
});

onPage("a compile error is the compiler's", async (playground, page) => {
    await playground.result(programs.uncompilable);
    const text = "The program did not compile: the compiler exited with code 1.";
    assert.equal(await playground.status.textContent(), text);
    const segment = page.locator(".segment[data-kind='compile stderr']");
    assert.equal(await segment.locator(".name").textContent(), "compiler err");
    assert.match(await segment.locator("pre").textContent(), /main\.c:1/);
});

onPage("stdin and arguments reach the program", async (playground, page) => {
    await playground.write(programs.echo);
    await page.fill("#stdin", "from stdin\n");
    await page.fill("#args", "two words\nlast");
    await playground.run();
    await playground.ended();
    const output = await playground.output.innerText();
    assert.match(output, /from stdin/);
    assert.match(output, isFake ? /two words last/ : /'two words', 'last'/);
});

onPage("a picture is shown, and other artifacts are saved", async (playground, page) => {
    await playground.write(programs.picture);
    await page.fill("#artifact-patterns", "*.png\n*.txt");
    await playground.run();
    await playground.ended();
    const picture = page.locator("#artifacts img");
    await picture.waitFor();
    await page.waitForFunction(() => document.querySelector("#artifacts img").naturalWidth > 0);
    assert.equal(await picture.getAttribute("alt"), "The picture one.png");
    const [download] = await Promise.all([page.waitForEvent("download"), page.click("[aria-label='Save one.txt']")]);
    assert.equal(download.suggestedFilename(), "one.txt");
    assert.equal(await readFile(await download.path(), "utf8"), "text");
});

onPage("hostile output stays text", async (playground, page) => {
    let dialogs = 0;
    page.on("dialog", (dialog) => {
        dialogs += 1;
        return dialog.dismiss();
    });
    const hostile = [
        "<script>alert(1)</script><img src=x onerror=alert(1)>",
        "\u001b[31mred\u001b[0m \u001b]0;title\u0007\u001b]8;;javascript:alert(1)\u001b\\link\u001b]8;;\u001b\\",
        "\u001b[2J\u001b[Hhome \u202egnp.exe \u0000end",
    ].join("|");
    await playground.result(printing(hostile));
    const shown = await page.locator("#output .segment pre").allTextContents();
    assert.equal(
        shown.join("").trim(),
        "<script>alert(1)</script><img src=x onerror=alert(1)>|red link|home \ufffdgnp.exe \u2400end",
    );
    assert.equal(await page.locator("#output :is(script, img, a)").count(), 0);
    assert.equal(await page.title(), "Cloude playground");
    assert.equal(dialogs, 0);
});

onPage("of a huge output the page keeps the end", async (playground, page) => {
    await playground.result(programs.flood);
    const kept = await page.evaluate(() => document.getElementById("output").textContent.length);
    assert.ok(kept > 200_000 && kept < 270_000, `${kept} characters`);
    assert.match(await page.locator("#output .note").innerText(), /^The page shows the end of the output: \d+ characters/);
});

onPage("a request that is too large shows the server's reason", async (playground) => {
    await playground.write(programs.hello);
    await playground.type("x".repeat(isFake ? 100_000 : 12_000_000));
    await playground.run();
    await playground.ended();
    assert.match(await playground.status.textContent(), /^(Too large|Refused): .*(limit|allowed)/);
});

onPage("a busy server shows when to try again", async (playground, page) => {
    await playground.ready();
    await page.route("**/v1/executions", (route) =>
        route.fulfill({
            status: 429,
            contentType: "application/problem+json",
            headers: { "retry-after": "17" },
            body: JSON.stringify({ type: "about:blank", title: "x", status: 429, detail: "the queue is full", retry_after_s: 17 }),
        }),
    );
    await playground.run();
    await playground.ended();
    assert.equal(await playground.status.textContent(), "The server is busy: the queue is full. Try again in 17 s.");
});

onPage("a server that is gone is named, and the program stays", async (playground, page) => {
    await playground.write(programs.hello);
    await page.context().setOffline(true);
    await playground.run();
    await playground.ended();
    assert.equal(await playground.status.textContent(), "No answer: the server cannot be reached.");
    assert.equal((await playground.code()).trim(), programs.hello.code);
    await page.context().setOffline(false);
    await playground.run();
    await playground.sees("exited with code 0");
});

onPage("a connection that breaks is no result", async (playground, page) => {
    await playground.ready();
    await page.route("**/v1/executions", (route) =>
        route.fulfill({ contentType: "application/x-ndjson", body: '{"event":"accepted","id":"a"}\n' }),
    );
    await playground.run();
    await playground.ended();
    assert.equal(await playground.status.textContent(), "No answer: the connection broke before the result.");
});

onPage("the page asks nothing of other servers, and may not", async (playground, page) => {
    await playground.result(programs.hello);
    const foreign = playground.requests.map((request) => request.url()).filter((asked) => !asked.startsWith(`${url}/`));
    assert.deepEqual(foreign.filter((asked) => !asked.startsWith("blob:") && !asked.startsWith("data:")), []);
    const refused = await page.evaluate(async () => {
        const violations = [];
        document.addEventListener("securitypolicyviolation", (event) => violations.push(event.effectiveDirective));
        await fetch("http://127.0.0.2:9/").catch(() => {});
        const frame = document.createElement("iframe");
        frame.src = "/";
        document.body.append(frame);
        const script = document.createElement("script");
        script.append("globalThis.injected = true");
        document.body.append(script);
        try {
            document.body.insertAdjacentHTML("beforeend", "<b>markup</b>");
        } catch (error) {
            violations.push(error.name);
        }
        // The event of the frame comes later than the others.
        while (!violations.includes("frame-src")) await new Promise((resolve) => setTimeout(resolve, 10));
        return { violations, injected: globalThis.injected };
    });
    for (const wanted of ["connect-src", "frame-src", "TypeError"]) {
        assert.ok(refused.violations.includes(wanted), `${wanted}: ${refused.violations}`);
    }
    assert.equal(refused.injected, undefined);
    // These refusals are the case's own.
    playground.faults.length = 0;
});

test("the page of the API works under its policy", async () => {
    const playground = await Playground.open(browser, { at: `${url}/docs/` });
    await playground.page.getByText("/v1/executions", { exact: false }).first().waitFor();
    await playground.close();
});
