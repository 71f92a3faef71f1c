// The API key. It is kept in this tab's storage, and sent in `Authorization` alone.

import { byId, onClick, openDialog } from "./dom.js";

const STORED = "cloude-key";

export class Key {
    #value = "";

    constructor() {
        try {
            this.#value = sessionStorage.getItem(STORED) ?? "";
        } catch {
            // The browser forbids storage: the key lasts until the page is left.
        }
        onClick(byId("forget-key"), () => {
            this.#set("");
            byId("key-dialog").close();
        });
        this.#show();
    }

    get value() {
        return this.#value;
    }

    /** Asks for the key; resolves to true if there is another one. */
    async ask(reason) {
        const input = byId("key");
        input.value = this.#value;
        byId("key-reason").textContent = reason;
        const isNew = (await openDialog(byId("key-dialog"))) && input.value.trim() !== "";
        if (isNew) this.#set(input.value.trim());
        input.value = "";
        return isNew;
    }

    #set(value) {
        this.#value = value;
        try {
            if (value) sessionStorage.setItem(STORED, value);
            else sessionStorage.removeItem(STORED);
        } catch {
            // As above.
        }
        this.#show();
    }

    #show() {
        byId("open-key").textContent = this.#value ? "API key: set" : "API key";
    }
}
