// The phases of an execution, one below the other, each beginning where the one before ended.

import { duration, element } from "./dom.js";

const PHASES = [
    ["Queue", "queue_us"],
    ["Start the VM", "start_us"],
    ["Identity", "identity_us"],
    ["Compile", "compile_us"],
    ["Run", "run_us"],
    ["Collect artifacts", "collect_us"],
];

function row(name, time, from, total) {
    const bar = element("span", { className: "bar-part", hidden: !total });
    // Properties of the style object are allowed where the policy forbids attributes.
    bar.style.marginInlineStart = `${total ? (100 * from) / total : 0}%`;
    bar.style.width = `${total ? (100 * time) / total : 0}%`;
    const share = time === null ? "" : `${total ? Math.round((100 * time) / total) : 0} %`;
    return element(
        "tr",
        {},
        element("th", { scope: "row" }, name),
        element("td", {}, time === null ? "–" : duration(time)),
        element("td", { title: share }, element("span", { className: "hidden-text" }, share), bar),
    );
}

/** The rows of the table; without timings, rows of the same height. */
export function rows(timings) {
    const total = timings?.total_us ?? 0;
    const made = [];
    let from = 0;
    for (const [name, field] of PHASES) {
        const time = timings ? (timings[field] ?? 0) : null;
        made.push(row(name, time, from, total));
        from += time ?? 0;
    }
    // Transfers between the parts, and measuring.
    made.push(row("Other", timings ? Math.max(0, total - from) : null, Math.min(from, total), total));
    made.push(row("Total", timings ? total : null, 0, 0));
    return made;
}
