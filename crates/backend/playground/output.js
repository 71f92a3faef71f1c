// The output of a program: segments of one stream each, with its name beside them, and bounded.

import { TextFilter } from "./ansi.js";
import { bytes, element } from "./dom.js";

/** Characters that the page keeps: the last ones. */
const KEPT = 256 * 1024;
const KEPT_SEGMENTS = 2000;

const NAMES = {
    "compile stdout": "compiler",
    "compile stderr": "compiler err",
    "run stdout": "stdout",
    "run stderr": "stderr",
};

/** The bytes of a `Data`: a string, or an object with `base64`. */
export function toBytes(data) {
    if (typeof data === "string") return new TextEncoder().encode(data);
    return Uint8Array.from(atob(data.base64), (letter) => letter.charCodeAt(0));
}

/** Text of one stream, whose characters may be cut in two between events. */
class Decoder {
    #decoder = new TextDecoder();
    #filter = new TextFilter();

    text(data) {
        return this.#filter.filter(this.#decoder.decode(toBytes(data), { stream: true }));
    }
}

export class Output {
    #element;
    #segments = [];
    #kept = 0;
    #dropped = 0;
    #note = element("p", { className: "note", hidden: true });
    #decoders = new Map();
    #waiting = [];
    #frame = 0;

    constructor(element) {
        this.#element = element;
        this.clear();
    }

    clear() {
        cancelAnimationFrame(this.#frame);
        this.#frame = 0;
        this.#segments = [];
        this.#waiting = [];
        this.#kept = this.#dropped = 0;
        this.#decoders.clear();
        this.#note.hidden = true;
        this.#element.replaceChildren(this.#note);
    }

    /** Data of a stream of a stage. It is shown with the next frame, so that a flood costs one layout per frame. */
    append(stage, stream, data) {
        const kind = `${stage} ${stream}`;
        if (!this.#decoders.has(kind)) this.#decoders.set(kind, new Decoder());
        this.#later(kind, this.#decoders.get(kind).text(data));
    }

    /** A remark of the page or the server. */
    remark(text) {
        this.#later("remark", `${text}\n`);
    }

    missing(stage, stream, count) {
        this.remark(`${bytes(count)} of ${NAMES[`${stage} ${stream}`]} are missing here: they were beyond the output limit`);
    }

    #later(kind, text) {
        if (text === "") return;
        const last = this.#waiting.at(-1);
        if (last?.kind === kind) last.text += text;
        else this.#waiting.push({ kind, text });
        // A page in the background gets no frames.
        if (this.#waiting.length > KEPT_SEGMENTS || this.#waiting.at(-1).text.length > KEPT) this.flush();
        else this.#frame ||= requestAnimationFrame(() => this.flush());
    }

    /** Shows all that came. */
    flush() {
        cancelAnimationFrame(this.#frame);
        this.#frame = 0;
        const box = this.#element;
        const isAtEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 8;
        for (const { kind, text } of this.#waiting) this.#show(kind, text);
        this.#waiting = [];
        this.#trim();
        if (isAtEnd) box.scrollTop = box.scrollHeight;
    }

    #show(kind, text) {
        let segment = this.#segments.at(-1);
        if (segment?.kind !== kind) {
            segment = { kind, text: document.createTextNode("") };
            segment.element = element(
                "div",
                { className: "segment", dataset: { kind } },
                element("span", { className: "name" }, NAMES[kind] ?? ""),
                element("pre", {}, segment.text),
            );
            this.#segments.push(segment);
            this.#element.append(segment.element);
        }
        segment.text.appendData(text);
        this.#kept += text.length;
    }

    #trim() {
        while (this.#kept > KEPT || this.#segments.length > KEPT_SEGMENTS) {
            const first = this.#segments[0];
            const over = this.#segments.length > KEPT_SEGMENTS ? first.text.length : this.#kept - KEPT;
            const cut = Math.min(over, first.text.length);
            first.text.deleteData(0, cut);
            this.#kept -= cut;
            this.#dropped += cut;
            if (first.text.length === 0) this.#segments.shift().element.remove();
        }
        if (this.#dropped > 0) {
            this.#note.hidden = false;
            this.#note.textContent = `The page shows the end of the output: ${this.#dropped} characters before it are left out.`;
        }
    }
}
