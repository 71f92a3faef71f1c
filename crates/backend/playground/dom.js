// Elements of the page. No function takes markup: text stays text.

export function byId(id) {
    return document.getElementById(id);
}

/** An element with properties (`dataset` and `aria-…` too) and children. */
export function element(tag, properties = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
        if (name === "dataset") Object.assign(made.dataset, value);
        else if (name in made) made[name] = value;
        else made.setAttribute(name, value);
    }
    made.append(...children);
    return made;
}

/** A button that is off keeps the keyboard's focus, which `disabled` would lose. */
export function setEnabled(button, enabled) {
    button.setAttribute("aria-disabled", String(!enabled));
}

export function onClick(button, action) {
    button.addEventListener("click", () => {
        if (button.getAttribute("aria-disabled") !== "true") action();
    });
}

/** Opens a dialog; resolves to true if its form was submitted, and to false if it was closed. */
export function openDialog(dialog) {
    dialog.returnValue = "";
    dialog.showModal();
    return new Promise((resolve) => {
        dialog.addEventListener("close", () => resolve(dialog.returnValue === "ok"), { once: true });
    });
}

/** The buttons that close their dialog. */
export function closeButtons() {
    for (const button of document.querySelectorAll("dialog [data-close]")) {
        button.addEventListener("click", () => button.closest("dialog").close());
    }
}

/** `12 B`, `3.4 KiB`. */
export function bytes(count) {
    if (count < 1024) return `${count} B`;
    const power = Math.min(3, Math.floor(Math.log2(count) / 10));
    return `${(count / 1024 ** power).toFixed(1)} ${["", "KiB", "MiB", "GiB"][power]}`;
}

/** Microseconds: `850 µs`, `1.5 ms`, `2.31 s`. */
export function duration(us) {
    if (us < 1000) return `${us} µs`;
    if (us < 1_000_000) return `${(us / 1000).toFixed(us < 100_000 ? 1 : 0)} ms`;
    return `${(us / 1_000_000).toFixed(2)} s`;
}
