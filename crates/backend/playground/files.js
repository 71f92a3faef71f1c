// The files of a program: tabs, and the buttons that add, upload, rename and remove them. The first is the program.

import { byId, bytes, element, onClick, openDialog, setEnabled } from "./dom.js";
import { Editor } from "./editor.js";
import { MAX_FILES, pathFault } from "./program.js";

/** Larger files are not taken, because the request carries them. */
const MAX_UPLOAD = 4 * 1024 * 1024;

async function readFile(file) {
    const content = new Uint8Array(await file.arrayBuffer());
    try {
        return { path: file.name, text: new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(content) };
    } catch {
        let letters = "";
        for (const byte of content) letters += String.fromCharCode(byte);
        return { path: file.name, base64: btoa(letters) };
    }
}

export class Files {
    #files = [{ path: "", text: "" }];
    #shown = 0;
    #editor;
    #onChange;
    #onFault;

    /** `onChange()`: a file changed. `onFault(text)`: an upload was refused. */
    constructor(onChange, onFault) {
        this.#onChange = onChange;
        this.#onFault = onFault;
        this.#editor = new Editor(byId("editor"), (path, text) => {
            const file = this.#files.find((file) => file.path === path);
            if (file) file.text = text;
            onChange();
        });
        onClick(byId("add-file"), () => this.#add());
        onClick(byId("rename-file"), () => this.#rename());
        onClick(byId("remove-file"), () => this.#remove());
        onClick(byId("upload"), () => byId("upload-input").click());
        byId("upload-input").addEventListener("change", (event) => this.#upload(event.target));
        byId("tabs").addEventListener("keydown", (event) => this.#onKey(event));
    }

    /** Shows a program whose file has this name, and its other files. */
    open(name, code, files) {
        this.#editor.reset();
        const others = files.filter((file) => file.path !== name);
        this.#files = [{ path: name, text: code }, ...others.map((file) => ({ ...file }))];
        this.#show(0);
    }

    get code() {
        return this.#files[0].text;
    }

    get others() {
        return this.#files.slice(1).map((file) => ({ ...file }));
    }

    focus() {
        this.#editor.focus();
    }

    #show(index) {
        this.#shown = index;
        const { path, text, base64 } = this.#files[index];
        const isText = text !== undefined;
        byId("editor").hidden = !isText;
        byId("binary").hidden = isText;
        if (isText) this.#editor.show(path, text);
        else byId("binary").textContent = `${path} is not text: ${bytes(Math.floor((base64.length * 3) / 4))}.`;
        setEnabled(byId("rename-file"), index > 0);
        setEnabled(byId("remove-file"), index > 0);
        this.#tabs();
    }

    #tabs() {
        const tabs = this.#files.map(({ path }, index) => {
            const isShown = index === this.#shown;
            const tab = element("button", {
                type: "button", role: "tab", id: `tab-${index}`, tabIndex: isShown ? 0 : -1,
                "aria-selected": String(isShown), "aria-controls": "editor",
            }, path);
            tab.addEventListener("click", () => this.#show(index));
            return tab;
        });
        byId("tabs").replaceChildren(...tabs);
        byId("editor").setAttribute("aria-labelledby", `tab-${this.#shown}`);
    }

    /** Arrows move between tabs (WAI-ARIA, tabs). */
    #onKey(event) {
        const last = this.#files.length - 1;
        const to = {
            ArrowLeft: this.#shown === 0 ? last : this.#shown - 1,
            ArrowRight: this.#shown === last ? 0 : this.#shown + 1,
            Home: 0,
            End: last,
        }[event.key];
        if (to === undefined) return;
        event.preventDefault();
        this.#show(to);
        byId(`tab-${to}`).focus();
    }

    async #askName(initial) {
        const input = byId("name");
        const others = this.#files.map((file) => file.path).filter((path) => path !== initial);
        const form = byId("name-dialog").querySelector("form");
        const check = (event) => {
            const fault = pathFault(input.value.trim(), others);
            byId("name-error").textContent = fault;
            if (fault) event.preventDefault();
        };
        input.value = initial;
        byId("name-error").textContent = "";
        form.addEventListener("submit", check);
        const isNamed = await openDialog(byId("name-dialog"));
        form.removeEventListener("submit", check);
        return isNamed ? input.value.trim() : null;
    }

    async #add() {
        const path = await this.#askName("");
        if (path === null) return;
        this.#files.push({ path, text: "" });
        this.#show(this.#files.length - 1);
        this.#editor.focus();
        this.#onChange();
    }

    async #rename() {
        const file = this.#files[this.#shown];
        const path = await this.#askName(file.path);
        if (path === null) return;
        const before = file.path;
        file.path = path;
        if (file.text !== undefined) this.#editor.rename(before, path, file.text);
        this.#show(this.#shown);
        this.#onChange();
    }

    #remove() {
        const file = this.#files[this.#shown];
        const isEmpty = file.text === "";
        if (!isEmpty && !confirm(`Remove ${file.path}?`)) return;
        this.#editor.close(file.path);
        this.#files.splice(this.#shown, 1);
        this.#show(this.#shown - 1);
        byId(`tab-${this.#shown}`).focus();
        this.#onChange();
    }

    async #upload(input) {
        const faults = [];
        for (const file of input.files) {
            const same = this.#files.findIndex(({ path }) => path === file.name);
            if (file.size > MAX_UPLOAD) faults.push(`${file.name} has more than ${bytes(MAX_UPLOAD)}.`);
            else if (this.#files.length > MAX_FILES) faults.push(`A program has at most ${MAX_FILES} other files.`);
            else {
                const read = await readFile(file);
                if (same === 0 && read.text === undefined) faults.push(`${file.name} is not text.`);
                else if (same >= 0) {
                    // The upload replaces it.
                    this.#editor.close(file.name);
                    this.#files[same] = read;
                } else this.#files.push(read);
            }
        }
        input.value = "";
        this.#show(Math.min(this.#shown, this.#files.length - 1));
        if (faults.length > 0) this.#onFault(faults.join(" "));
        this.#onChange();
    }
}
