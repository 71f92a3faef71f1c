// The server's API (docs/api.md).

/** A request that the server refused, or that did not reach it. */
export class ApiError extends Error {
    /** @param {number} status  0 if there is no answer */
    constructor(status, message, { field, retryAfter } = {}) {
        super(message);
        this.status = status;
        this.field = field;
        this.retryAfter = retryAfter;
    }
}

/** The reason of an answer: of a problem document (RFC 9457), else of its status. */
async function refusal(response) {
    const problem = await response.json().catch(() => ({}));
    const detail = problem.detail ?? problem.error ?? `the server answered ${response.status} ${response.statusText}`;
    const retryAfter = problem.retry_after_s ?? (Number(response.headers.get("retry-after")) || undefined);
    return new ApiError(response.status, detail, { field: problem.field, retryAfter });
}

/** The lines of a body, as JSON. */
async function* jsonLines(body) {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    try {
        for (let rest = ""; ; ) {
            const { done, value } = await reader.read();
            if (done) return;
            const parts = (rest + value).split("\n");
            rest = parts.pop();
            for (const line of parts) if (line !== "") yield JSON.parse(line);
        }
    } finally {
        reader.cancel().catch(() => {});
    }
}

export class Api {
    /** Returns the API key, or an empty text. */
    #key;

    constructor(key) {
        this.#key = key;
    }

    async #fetch(path, { headers = {}, ...options } = {}) {
        const key = this.#key();
        if (key) headers.Authorization = `Bearer ${key}`;
        let response;
        try {
            response = await fetch(path, { ...options, headers, credentials: "omit", cache: "no-store" });
        } catch (error) {
            if (error.name === "AbortError") throw error;
            throw new ApiError(0, "the server cannot be reached");
        }
        if (!response.ok) throw await refusal(response);
        return response;
    }

    async languages() {
        return (await this.#fetch("/v1/languages")).json();
    }

    async language(name) {
        return (await this.#fetch(`/v1/languages/${encodeURIComponent(name)}`)).json();
    }

    /** Runs a program; yields its events. The last one has the result. */
    async *execute(request, signal) {
        const response = await this.#fetch("/v1/executions", {
            method: "POST",
            headers: { "Content-Type": "application/json", Accept: "application/x-ndjson" },
            body: JSON.stringify(request),
            signal,
        });
        let isEnded = false;
        try {
            for await (const event of jsonLines(response.body)) {
                isEnded = event.event === "result";
                yield event;
            }
        } catch (error) {
            if (error.name === "AbortError") throw error;
            isEnded = false;
        }
        if (!isEnded) throw new ApiError(0, "the connection broke before the result");
    }

    async cancel(id) {
        await this.#fetch(`/v1/executions/${id}`, { method: "DELETE" });
    }

    /** The content of an artifact. */
    async artifact(id, path) {
        const parts = path.split("/").map(encodeURIComponent).join("/");
        return (await this.#fetch(`/v1/executions/${id}/artifacts/${parts}`)).blob();
    }
}
