// The page: connects the program, its execution and its result.

import { Api, ApiError } from "./api.js";
import { Artifacts } from "./artifacts.js";
import { byId, closeButtons, onClick, setEnabled } from "./dom.js";
import { Drafts } from "./drafts.js";
import { Files } from "./files.js";
import { Key } from "./key.js";
import { Languages } from "./languages.js";
import * as link from "./link.js";
import { Output } from "./output.js";
import { lines, request } from "./program.js";
import * as result from "./result.js";
import { rows } from "./timings.js";

/** Time after which a stop that the server does not answer closes the connection, which stops the execution, too. */
const STOP_MS = 5000;
/** Longer links are cut by some chat programs. */
const LONG_LINK = 8000;

const key = new Key();
const api = new Api(() => key.value);
const drafts = new Drafts();
const output = new Output(byId("output"));
const artifacts = new Artifacts(byId("artifacts"), api);
const languages = new Languages(api, (name) => open(name));
const files = new Files(onEdit, notice);

/** The language of the editor, with its example; null before the languages are known. */
let language = null;
/** The running execution: its id once it is known, and the end of its connection. */
let running = null;
/** True while `show` fills the form, which is no edit of the user. */
let isFilling = false;

function notice(text) {
    byId("notice").textContent = text;
    byId("notice").hidden = text === "";
}

function status(state, text) {
    byId("status").dataset.state = state;
    byId("status").textContent = text;
}

function current() {
    return {
        language: language.name,
        version: language.version,
        code: files.code,
        stdin: byId("stdin").value,
        args: lines(byId("args").value),
        artifacts: lines(byId("artifact-patterns").value),
        files: files.others,
    };
}

function onEdit() {
    if (isFilling || language === null) return;
    drafts.keep(current());
    if (!drafts.isStored) notice("This program is too large for the browser's storage: a reload loses it.");
}

function show(program) {
    isFilling = true;
    files.open(language.file, program.code, program.files);
    byId("stdin").value = program.stdin;
    byId("args").value = program.args.join("\n");
    byId("artifact-patterns").value = program.artifacts.join("\n");
    isFilling = false;
}

/** Opens a language with `program`, or else with its draft, or else with its example. */
async function open(name, program = drafts.get(name)) {
    setEnabled(byId("run"), false);
    languages.select(name);
    let details;
    try {
        details = await languages.details(name);
    } catch (error) {
        await failed(error, () => open(name, program));
        return;
    }
    // The user chose another one meanwhile.
    if (!languages.isSelected(name)) return;
    language = details;
    const { code, stdin, args } = language.example;
    show(program ?? { code, stdin, args, artifacts: [], files: [] });
    drafts.choose(language.name);
    if (program) drafts.keep(current());
    setEnabled(byId("run"), running === null);
}

/** Puts the example in the place of the language's program. */
async function restore() {
    if (language === null || (drafts.get(language.name) && !confirm("Replace this program by the example?"))) return;
    drafts.forget(language.name);
    await open(language.name);
}

/** The program of the page's link, without the link: a reload must not lose later changes. */
async function fromLink() {
    const fragment = location.hash;
    if (fragment.length < 2) return null;
    history.replaceState(null, "", location.pathname + location.search);
    try {
        return await link.decode(fragment);
    } catch (error) {
        notice(`The link's program cannot be read: ${error.message}`);
        return null;
    }
}

async function openLinked(program) {
    const found = languages.find(program.language);
    if (!found?.image_ready) {
        notice(`The link's program is written in ${program.language}, which this server cannot run.`);
        return false;
    }
    if (program.version && found.version && program.version !== found.version) {
        notice(`The link's program was written for ${program.version}. This server has ${found.version}.`);
    }
    await open(found.name, program);
    return true;
}

async function start() {
    try {
        await languages.load();
    } catch (error) {
        await failed(error, start);
        return;
    }
    const linked = await fromLink();
    if (linked && (await openLinked(linked))) return;
    const wanted = languages.find(drafts.language)?.image_ready ? drafts.language : languages.first;
    if (wanted) await open(wanted);
    else notice("This server has no language's image yet. `cloude image build --language python` builds one.");
}

/** Shows a failed request. For want of a key, asks for it and tries `again`. */
async function failed(error, again) {
    const { status: code, message, field, retryAfter } = error;
    if (!(error instanceof ApiError)) throw error;
    if (code === 401) {
        status("failed", "The server requires an API key.");
        if (await key.ask(message)) await again();
        return;
    }
    const where = field ? ` (${field})` : "";
    const when = retryAfter ? ` Try again in ${retryAfter} s.` : "";
    const about = { 0: "No answer", 413: "Too large", 429: "The server is busy" }[code] ?? "Refused";
    const text = `${about}: ${message}${where}.${when}`;
    status("failed", text);
    if (language === null) notice(text);
}

async function run() {
    if (running || language === null) return;
    const abort = new AbortController();
    running = { id: null, abort };
    setEnabled(byId("run"), false);
    setEnabled(byId("stop"), true);
    notice("");
    output.clear();
    artifacts.clear();
    byId("facts").replaceChildren();
    byId("timings").tBodies[0].replaceChildren(...rows(null));
    status("running", "Sent…");
    let again = null;
    try {
        for await (const event of api.execute(request(current()), abort.signal)) onEvent(event);
    } catch (error) {
        output.flush();
        if (error.name === "AbortError") status("stopped", "Stopped. The server did not answer.");
        else again = error;
    }
    running = null;
    setEnabled(byId("run"), true);
    setEnabled(byId("stop"), false);
    if (again) await failed(again, run);
}

function onEvent(event) {
    switch (event.event) {
        case "accepted":
            running.id = event.id;
            status("running", "Waiting for a virtual machine…");
            break;
        case "started":
            status("running", event.stage === "compile" ? "Compiling…" : "Running…");
            break;
        case "output":
            output.append(event.stage, event.stream, event.data);
            break;
        case "dropped":
            output.missing(event.stage, event.stream, event.bytes);
            break;
        case "result":
            output.flush();
            status(result.state(event), result.sentence(event));
            byId("facts").replaceChildren(...result.facts(event));
            byId("timings").tBodies[0].replaceChildren(...rows(event.timings));
            artifacts.show(event);
            break;
        default: // An event of a newer server.
    }
}

async function stop() {
    if (!running) return;
    const { id, abort } = running;
    setEnabled(byId("stop"), false);
    if (id === null) {
        abort.abort();
        return;
    }
    const timer = setTimeout(() => abort.abort(), STOP_MS);
    try {
        await api.cancel(id);
    } catch {
        abort.abort();
    } finally {
        clearTimeout(timer);
    }
}

async function share() {
    if (language === null) return;
    const url = new URL(await link.encode(current()), location.origin + location.pathname).href;
    byId("link").value = url;
    byId("share-note").textContent =
        url.length > LONG_LINK
            ? `The link has ${url.length} characters. Some programs cut links of this length.`
            : "The program is in the link itself. Opening it sends nothing, and runs nothing.";
    byId("share-dialog").showModal();
    byId("link").select();
}

async function copy() {
    byId("link").select();
    try {
        // Only on https and on localhost.
        await navigator.clipboard.writeText(byId("link").value);
        byId("share-note").textContent = "Copied.";
    } catch {
        byId("share-note").textContent = "The browser does not let the page copy. The link is selected: copy it with Ctrl+C.";
    }
}

closeButtons();
onClick(byId("run"), run);
onClick(byId("stop"), stop);
onClick(byId("share"), share);
onClick(byId("restore"), restore);
onClick(byId("copy"), copy);
onClick(byId("open-key"), async () => {
    const isNew = await key.ask("A server that listens beyond its own machine requires a key.");
    if (isNew && language === null) await start();
});
for (const id of ["stdin", "args", "artifact-patterns"]) byId(id).addEventListener("input", onEdit);
// Before the editor, which has other uses for these keys.
document.addEventListener(
    "keydown",
    (event) => {
        if (!(event.ctrlKey || event.metaKey) || document.querySelector("dialog[open]")) return;
        const action = { Enter: run, ".": stop }[event.key];
        if (!action) return;
        event.preventDefault();
        event.stopPropagation();
        action();
    },
    { capture: true },
);
window.addEventListener("hashchange", async () => {
    const linked = await fromLink();
    if (linked) await openLinked(linked);
});
byId("timings").tBodies[0].replaceChildren(...rows(null));
await start();
