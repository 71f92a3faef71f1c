// The editor: CodeMirror in a shadow root, with a document for each file.

import { createState, createView } from "./vendor/codemirror.js";

export class Editor {
    #view;
    /** States by path, each with its history of changes. */
    #states = new Map();
    #shown = null;
    #onChange;

    /** `onChange(path, text)`: the user or `open` changed a document. */
    constructor(host, onChange) {
        this.#onChange = onChange;
        this.#view = createView(host.attachShadow({ mode: "open" }), this.#state("", ""));
    }

    /** Shows the document of a file; `text` is its content if it is not open yet. */
    show(path, text) {
        this.#keep();
        this.#shown = path;
        this.#view.setState(this.#states.get(path) ?? this.#state(path, text));
    }

    rename(from, to, text) {
        this.#states.delete(from);
        if (this.#shown === from) this.#shown = null;
        this.show(to, text);
    }

    close(path) {
        this.#states.delete(path);
        if (this.#shown === path) this.#shown = null;
    }

    /** Forgets all documents. */
    reset() {
        this.#states.clear();
        this.#shown = null;
    }

    focus() {
        this.#view.focus();
    }

    #keep() {
        if (this.#shown !== null) this.#states.set(this.#shown, this.#view.state);
    }

    #state(path, text) {
        const name = path.split("/").pop();
        const extension = name.includes(".") ? name.split(".").pop().toLowerCase() : "";
        const onChange = (changed) => this.#onChange(path, changed);
        return createState({ text, extension, label: `Code of ${path}`, onChange });
    }
}
