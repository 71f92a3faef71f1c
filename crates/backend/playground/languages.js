// The choice of the language.

import { byId, element } from "./dom.js";

export class Languages {
    #select = byId("language");
    /** By name. */
    #languages = new Map();
    #details = new Map();
    #api;

    constructor(api, onChange) {
        this.#api = api;
        this.#select.addEventListener("change", () => onChange(this.#select.value));
    }

    /** Reads the languages from the server. */
    async load() {
        const list = await this.#api.languages();
        this.#languages = new Map(list.map((language) => [language.name, language]));
        const options = list.map(({ name, version, image_ready: isReady }) =>
            element(
                "option",
                { value: name, disabled: !isReady },
                isReady ? `${name} (${version ?? "version unknown"})` : `${name}: no image on this server`,
            ),
        );
        this.#select.replaceChildren(...options);
        this.#select.disabled = false;
    }

    /** The language to begin with: Python, or the first that can run. */
    get first() {
        const ready = [...this.#languages.values()].filter((language) => language.image_ready);
        return (ready.find(({ name }) => name === "python") ?? ready[0])?.name;
    }

    /** The language with a name or an alias. */
    find(name) {
        const all = [...this.#languages.values()];
        return this.#languages.get(name) ?? all.find(({ aliases }) => aliases.includes(name));
    }

    select(name) {
        this.#select.value = name;
    }

    isSelected(name) {
        return this.#select.value === name;
    }

    /** A language with its example. */
    async details(name) {
        if (!this.#details.has(name)) this.#details.set(name, await this.#api.language(name));
        return this.#details.get(name);
    }
}
