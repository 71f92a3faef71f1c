// The result of an execution in words.

import { bytes, duration, element } from "./dom.js";

const SIGNALS = {
    1: "SIGHUP", 2: "SIGINT", 3: "SIGQUIT", 4: "SIGILL", 5: "SIGTRAP", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE",
    9: "SIGKILL", 10: "SIGUSR1", 11: "SIGSEGV", 12: "SIGUSR2", 13: "SIGPIPE", 14: "SIGALRM", 15: "SIGTERM",
    24: "SIGXCPU", 25: "SIGXFSZ", 31: "SIGSYS",
};

const STARTS = { pool: "a fork that waited", fork: "forked from a template", cold: "booted" };

function ending({ cause, exit_code: code, signal, memory_bytes: memory }) {
    switch (cause) {
        case "exit":
            return `exited with code ${code}`;
        case "signal":
            return `was ended by signal ${signal}${SIGNALS[signal] ? ` (${SIGNALS[signal]})` : ""}`;
        case "wall_time":
            return "was stopped at the time limit";
        case "cpu_time":
            return "was stopped at the limit of CPU time";
        case "memory":
            return `ran out of memory${memory ? ` (${bytes(memory)})` : ""}`;
        case "output_limit":
            return "was stopped at the output limit";
        case "disk":
            return `failed at the limit of the disk or of a file${code === null ? "" : `, with code ${code}`}`;
        case "processes":
            return `failed at the limit of processes${code === null ? "" : `, with code ${code}`}`;
        case "guest_panic":
            return "ended with its virtual machine: the guest's kernel stopped";
        case "cancelled":
            return "was stopped";
        default:
            return `ended: ${cause}`;
    }
}

/** One sentence: how the execution ended. */
export function sentence(execution) {
    const { cause, compile, run, error } = execution;
    if (cause === "infrastructure") return `Cloude could not run the program: ${run?.message ?? error ?? "no reason is known"}`;
    const isCompiler = compile && !run && cause !== "cancelled" && cause !== "guest_panic";
    const who = isCompiler ? "The program did not compile: the compiler" : "The program";
    const more = (run ?? compile?.result)?.message ?? error;
    return `${who} ${ending(execution)}${more ? `: ${more}` : ""}.`;
}

/** `ok`, `failed` or `stopped`, for the colour and the mark of the sentence. */
export function state({ cause, exit_code: code }) {
    if (cause === "cancelled") return "stopped";
    return cause === "exit" && code === 0 ? "ok" : "failed";
}

/** The measurements, as items of a description list. */
export function facts(execution) {
    const { version, language, start, run, compile, memory_bytes: memory, created_ms: created } = execution;
    const measured = run ?? compile?.result;
    const pairs = [["Language", version ?? language], ["Virtual machine", STARTS[start] ?? start]];
    if (measured) {
        pairs.push(["CPU time", duration(measured.cpu_time_us)]);
        pairs.push(["Peak memory", `${bytes(measured.peak_memory_bytes)}${memory ? ` of ${bytes(memory)}` : ""}`]);
    }
    if (created) pairs.push(["Started", new Date(created).toISOString()]);
    pairs.push(["Execution", execution.id]);
    return pairs.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value)));
}
