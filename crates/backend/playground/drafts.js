// The programs that are being written, one for each language, in this tab's storage: a reload keeps them.

import { checked } from "./program.js";

const STORED = "cloude-drafts";

export class Drafts {
    /** @type {Map<string, import("./program.js").Program>} */
    #programs = new Map();
    /** The language that was shown last. */
    language = null;
    /** False once the browser refused to store them, because they are too large or storage is forbidden. */
    isStored = true;

    constructor() {
        try {
            const { language, programs } = JSON.parse(sessionStorage.getItem(STORED)) ?? {};
            for (const value of programs ?? []) {
                const program = checked(value);
                if (program) this.#programs.set(program.language, program);
            }
            if (typeof language === "string") this.language = language;
        } catch {
            // Nothing is stored, or not by this page.
        }
    }

    get(language) {
        return this.#programs.get(language);
    }

    /** The language that a reload shows. */
    choose(language) {
        this.language = language;
        this.#store();
    }

    keep(program) {
        this.#programs.set(program.language, program);
        this.#store();
    }

    forget(language) {
        this.#programs.delete(language);
        this.#store();
    }

    #store() {
        try {
            const programs = [...this.#programs.values()];
            sessionStorage.setItem(STORED, JSON.stringify({ language: this.language, programs }));
            this.isStored = true;
        } catch {
            this.isStored = false;
        }
    }
}
