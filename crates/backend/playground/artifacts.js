// The files that a program left: pictures are shown, all can be saved.

import { bytes, element } from "./dom.js";

/** Larger pictures are shown on request only, by saving them. */
const MAX_PICTURE = 8 * 1024 * 1024;

const PICTURES = { gif: "image/gif", jpeg: "image/jpeg", jpg: "image/jpeg", png: "image/png", svg: "image/svg+xml", webp: "image/webp" };

function pictureType(path) {
    const extension = path.split(".").pop().toLowerCase();
    return Object.hasOwn(PICTURES, extension) ? PICTURES[extension] : null;
}

/**
 * The URL of a picture. An SVG gets a `data:` URL: opened in a tab of its own it has no origin, while a `blob:` URL would
 * have this page's.
 */
async function pictureUrl(content, type) {
    const typed = new Blob([content], { type });
    if (type !== "image/svg+xml") return URL.createObjectURL(typed);
    return new Promise((resolve, reject) => {
        const reader = new FileReader();
        reader.onload = () => resolve(reader.result);
        reader.onerror = () => reject(reader.error);
        reader.readAsDataURL(typed);
    });
}

export class Artifacts {
    #element;
    #api;
    #urls = [];

    constructor(element, api) {
        this.#element = element;
        this.#api = api;
    }

    clear() {
        for (const url of this.#urls) URL.revokeObjectURL(url);
        this.#urls = [];
        this.#element.replaceChildren();
    }

    show({ id, artifacts = [], artifacts_dropped: dropped = 0 }) {
        this.clear();
        if (artifacts.length === 0 && dropped === 0) return;
        const items = artifacts.map((artifact) => this.#item(id, artifact));
        this.#element.append(element("h2", {}, "Artifacts"), element("ul", {}, ...items));
        if (dropped > 0) {
            const reason = "they exceed the limit, or are no regular files";
            this.#element.append(element("p", { className: "note" }, `${dropped} more were left out: ${reason}.`));
        }
    }

    #item(id, { path, bytes: size }) {
        const save = element("button", { type: "button", "aria-label": `Save ${path}` }, "Save");
        const item = element("li", {}, element("span", {}, path), ` ${bytes(size)} `, save);
        save.addEventListener("click", () => this.#save(id, path, item));
        const type = pictureType(path);
        if (type && size <= MAX_PICTURE) this.#showPicture(id, path, type, item);
        return item;
    }

    async #showPicture(id, path, type, item) {
        try {
            const url = await pictureUrl(await this.#api.artifact(id, path), type);
            if (!item.isConnected) return;
            this.#urls.push(url);
            const picture = element("img", { alt: `The picture ${path}`, src: url });
            picture.addEventListener("error", () => picture.replaceWith(fault(`${path} is not a picture`)));
            item.append(picture);
        } catch (error) {
            item.append(fault(error.message));
        }
    }

    async #save(id, path, item) {
        try {
            const url = URL.createObjectURL(await this.#api.artifact(id, path));
            element("a", { href: url, download: path.split("/").pop() }).click();
            setTimeout(() => URL.revokeObjectURL(url), 60_000);
        } catch (error) {
            item.append(fault(error.message));
        }
    }
}

function fault(text) {
    return element("span", { className: "fault", role: "alert" }, ` ${text}`);
}
