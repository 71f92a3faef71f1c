// A program: what the editor edits, a link carries and a request runs.

/**
 * @typedef {{path: string, text?: string, base64?: string}} ExtraFile  `base64` if it is not UTF-8
 * @typedef {{language: string, version?: string, code: string, stdin: string, args: string[], artifacts: string[],
 *     files: ExtraFile[]}} Program
 */

/** The server allows 999 beside the program. */
export const MAX_FILES = 999;

export function lines(text) {
    return text.split("\n").map((line) => line.replace(/\r$/, "")).filter((line) => line !== "");
}

function isTexts(value) {
    return Array.isArray(value) && value.every((text) => typeof text === "string");
}

function isFile(file) {
    const content = [file?.text, file?.base64].filter((text) => text !== undefined);
    return typeof file?.path === "string" && file.path !== "" && content.length === 1 && typeof content[0] === "string";
}

/** The program of a link or of the storage, or null if it is none. Anything unknown in it is dropped. */
export function checked(value) {
    const { language, version, code = "", stdin = "", args = [], artifacts = [], files = [] } = value ?? {};
    const isProgram =
        typeof language === "string" && language !== "" &&
        (version === undefined || typeof version === "string") &&
        typeof code === "string" && typeof stdin === "string" && isTexts(args) && isTexts(artifacts) &&
        Array.isArray(files) && files.length <= MAX_FILES && files.every(isFile) &&
        new Set(files.map((file) => file.path)).size === files.length;
    if (!isProgram) return null;
    const kept = files.map(({ path, text, base64 }) => (text === undefined ? { path, base64 } : { path, text }));
    return { language, version, code, stdin, args, artifacts, files: kept };
}

/** The body of `POST /v1/executions`. */
export function request({ language, code, stdin, args, artifacts, files }) {
    return {
        language,
        code,
        stdin,
        args,
        artifacts,
        files: files.map(({ path, text, base64 }) => ({ path, content: text ?? { base64 } })),
    };
}

/** The reason against a path of a file, or an empty text. The server has the last word. */
export function pathFault(path, others) {
    if (path === "") return "Enter a path.";
    if (path.startsWith("/")) return "The path must be relative to the work directory.";
    if (path.split("/").some((part) => part === "" || part === "." || part === "..")) {
        return "No part of the path may be empty, “.” or “..”.";
    }
    if (others.includes(path)) return "Another file has this path.";
    return "";
}
