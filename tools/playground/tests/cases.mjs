// The browser of a file of cases, and cases that have a page of their own.

import { after, before, test } from "node:test";

import { Playground, launch } from "./page.mjs";

export let browser;
before(async () => {
    browser = await launch();
});
after(() => browser.close());

/** A case with a page of its own. */
export function onPage(name, body, options) {
    test(name, async () => {
        const playground = await Playground.open(browser, options);
        await body(playground, playground.page);
        await playground.close();
    });
}
