// Removes terminal control from a program's output. The page shows text and obeys nothing.

const TEXT = 0;
const ESCAPE = 1; // after ESC
const INTERMEDIATE = 2; // after ESC and bytes 0x20 to 0x2F
const CONTROL = 3; // in a control sequence, after ESC [
const STRING = 4; // in an operating system command or another string, up to BEL or ESC \
const STRING_ESCAPE = 5;

/** Text that is shown as it is. */
const PLAIN = /^[^\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]*$/;

/** A filter of one stream (ECMA-48, 5 and 8.3), which keeps its place in a sequence that is cut in two. */
export class TextFilter {
    #state = TEXT;
    #afterReturn = false;

    /** The visible text: lines end with \n, and other control characters become pictures of them (U+2400). */
    filter(text) {
        if (this.#state === TEXT && !this.#afterReturn && PLAIN.test(text)) return text;
        let shown = "";
        for (const letter of text) shown += this.#next(letter, letter.codePointAt(0));
        return shown;
    }

    #next(letter, code) {
        switch (this.#state) {
            case ESCAPE:
                return this.#escape(code);
            case INTERMEDIATE:
                if (code < 0x20 || code > 0x2f) this.#state = TEXT;
                return "";
            case CONTROL:
                // A control character or ESC inside means that the sequence is broken off.
                if (code < 0x20) return this.#restart(letter, code);
                if (code >= 0x40) this.#state = TEXT;
                return "";
            case STRING:
                if (code === 7 || code === 0x9c) this.#state = TEXT;
                else if (code === 0x1b) this.#state = STRING_ESCAPE;
                return "";
            case STRING_ESCAPE:
                if (letter === "\\") this.#state = TEXT;
                else if (code !== 0x1b) this.#state = STRING;
                return "";
            default:
                return this.#text(letter, code);
        }
    }

    #restart(letter, code) {
        this.#state = TEXT;
        return this.#text(letter, code);
    }

    #escape(code) {
        if (code === 0x5b) this.#state = CONTROL;
        else if ([0x50, 0x58, 0x5d, 0x5e, 0x5f].includes(code)) this.#state = STRING;
        else if (code >= 0x20 && code <= 0x2f) this.#state = INTERMEDIATE;
        else if (code !== 0x1b) this.#state = TEXT;
        return "";
    }

    #text(letter, code) {
        const afterReturn = this.#afterReturn;
        this.#afterReturn = letter === "\r";
        if (code === 0x1b) this.#state = ESCAPE;
        else if (code === 0x9b) this.#state = CONTROL;
        else if (code === 0x90 || code === 0x98 || (code >= 0x9d && code <= 0x9f)) this.#state = STRING;
        // A progress bar that goes back to the start of its line becomes lines.
        else if (letter === "\r") return "\n";
        else if (letter === "\n") return afterReturn ? "" : "\n";
        else if (letter === "\t") return letter;
        else if (code < 0x20) return String.fromCodePoint(0x2400 + code);
        else if (code === 0x7f) return "\u2421";
        else if (code > 0x7f && code < 0xa0) return "\ufffd";
        // Letters that reverse the direction of those after them.
        else if ((code >= 0x202a && code <= 0x202e) || (code >= 0x2066 && code <= 0x2069)) return "\ufffd";
        else return letter;
        return "";
    }
}
