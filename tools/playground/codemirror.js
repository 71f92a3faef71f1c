// The entry of crates/backend/playground/vendor/codemirror.js: what the page uses of CodeMirror. tools/playground/build
// bundles it.

import { defaultKeymap, history, historyKeymap, indentWithTab } from "@codemirror/commands";
import {
    HighlightStyle,
    StreamLanguage,
    bracketMatching,
    indentOnInput,
    indentUnit,
    syntaxHighlighting,
} from "@codemirror/language";
import { search, searchKeymap } from "@codemirror/search";
import { EditorState } from "@codemirror/state";
import {
    EditorView,
    drawSelection,
    highlightActiveLine,
    highlightActiveLineGutter,
    keymap,
    lineNumbers,
} from "@codemirror/view";
import { tags } from "@lezer/highlight";

import { c, cpp, csharp, java, kotlin } from "@codemirror/legacy-modes/mode/clike";
import { clojure } from "@codemirror/legacy-modes/mode/clojure";
import { coffeeScript } from "@codemirror/legacy-modes/mode/coffeescript";
import { commonLisp } from "@codemirror/legacy-modes/mode/commonlisp";
import { css } from "@codemirror/legacy-modes/mode/css";
import { d } from "@codemirror/legacy-modes/mode/d";
import { erlang } from "@codemirror/legacy-modes/mode/erlang";
import { fortran } from "@codemirror/legacy-modes/mode/fortran";
import { gas } from "@codemirror/legacy-modes/mode/gas";
import { go } from "@codemirror/legacy-modes/mode/go";
import { haskell } from "@codemirror/legacy-modes/mode/haskell";
import { javascript, json, typescript } from "@codemirror/legacy-modes/mode/javascript";
import { lua } from "@codemirror/legacy-modes/mode/lua";
import { oCaml } from "@codemirror/legacy-modes/mode/mllike";
import { octave } from "@codemirror/legacy-modes/mode/octave";
import { pascal } from "@codemirror/legacy-modes/mode/pascal";
import { perl } from "@codemirror/legacy-modes/mode/perl";
import { properties } from "@codemirror/legacy-modes/mode/properties";
import { python } from "@codemirror/legacy-modes/mode/python";
import { r } from "@codemirror/legacy-modes/mode/r";
import { ruby } from "@codemirror/legacy-modes/mode/ruby";
import { rust } from "@codemirror/legacy-modes/mode/rust";
import { scheme } from "@codemirror/legacy-modes/mode/scheme";
import { shell } from "@codemirror/legacy-modes/mode/shell";
import { sqlite } from "@codemirror/legacy-modes/mode/sql";
import { tcl } from "@codemirror/legacy-modes/mode/tcl";
import { toml } from "@codemirror/legacy-modes/mode/toml";
import { vhdl } from "@codemirror/legacy-modes/mode/vhdl";
import { xml } from "@codemirror/legacy-modes/mode/xml";
import { yaml } from "@codemirror/legacy-modes/mode/yaml";

/**
 * Modes by file name extension. CodeMirror has none for some languages. They have the mode of a language with the same
 * comments and literals: Ada that of VHDL, Awk, PHP and Raku that of Perl, Elixir that of Ruby, Prolog that of Erlang.
 */
const MODES = {
    adb: vhdl, ads: vhdl,
    asm: gas, s: gas,
    awk: perl,
    bash: shell, sh: shell,
    c, h: c,
    clj: clojure, cljs: clojure,
    coffee: coffeeScript,
    cc: cpp, cpp, cxx: cpp, hpp: cpp,
    cs: csharp,
    css,
    d,
    erl: erlang, hrl: erlang, pro: erlang, prolog: erlang,
    ex: ruby, exs: ruby,
    f: fortran, f90: fortran, f95: fortran, f03: fortran, f08: fortran, for: fortran,
    go,
    hs: haskell,
    html: xml, svg: xml, xml,
    ini: properties, properties,
    java,
    cjs: javascript, js: javascript, mjs: javascript,
    json,
    kt: kotlin, kts: kotlin,
    cl: commonLisp, lisp: commonLisp, lsp: commonLisp,
    lua,
    m: octave,
    ml: oCaml, mli: oCaml,
    pas: pascal, pp: pascal,
    php: perl,
    pl: perl, pm: perl, raku: perl, rakumod: perl,
    py: python,
    r,
    rb: ruby,
    rs: rust,
    scm: scheme, ss: scheme,
    sql: sqlite,
    cts: typescript, mts: typescript, ts: typescript,
    tcl,
    toml,
    yaml, yml: yaml,
};

/** The colours are variables of the page, which its themes set. */
const HIGHLIGHT = HighlightStyle.define([
    { tag: [tags.keyword, tags.operatorKeyword, tags.modifier], color: "var(--code-keyword)" },
    { tag: [tags.string, tags.special(tags.string), tags.regexp], color: "var(--code-string)" },
    { tag: [tags.number, tags.bool, tags.null, tags.atom], color: "var(--code-literal)" },
    { tag: [tags.comment, tags.meta], color: "var(--code-comment)", fontStyle: "italic" },
    { tag: [tags.typeName, tags.className, tags.tagName], color: "var(--code-type)" },
    {
        tag: [tags.standard(tags.variableName), tags.definition(tags.variableName), tags.propertyName, tags.attributeName],
        color: "var(--code-name)",
    },
]);

/** The looks of the editor, in the page's variables. */
const THEME = EditorView.theme({
    "&": { height: "100%", color: "var(--text)", backgroundColor: "var(--panel)", fontSize: "14px" },
    ".cm-scroller": { fontFamily: "var(--mono)", lineHeight: "1.45", overflow: "auto" },
    // The page marks the focus.
    "&.cm-focused": { outline: "none" },
    ".cm-content": { caretColor: "var(--text)" },
    ".cm-cursor": { borderLeftColor: "var(--text)" },
    ".cm-gutters": { backgroundColor: "var(--panel)", color: "var(--muted)", borderRight: "1px solid var(--line)" },
    ".cm-activeLine, .cm-activeLineGutter": { backgroundColor: "color-mix(in srgb, var(--accent) 8%, transparent)" },
    "&.cm-focused > .cm-scroller > .cm-selectionLayer .cm-selectionBackground, .cm-selectionBackground": {
        background: "color-mix(in srgb, var(--accent) 30%, transparent)",
    },
    "&.cm-focused .cm-matchingBracket": { backgroundColor: "color-mix(in srgb, var(--ok) 30%, transparent)" },
    ".cm-panels": { backgroundColor: "var(--page)", color: "var(--text)" },
    ".cm-textfield, .cm-button": { backgroundImage: "none", backgroundColor: "var(--panel)", color: "var(--text)" },
});

/** True if files with this extension are highlighted. */
export function isHighlighted(extension) {
    return Object.hasOwn(MODES, extension);
}

/** A document with its own history. `label`: its name for screen readers. */
export function createState({ text, extension, label, onChange }) {
    const mode = isHighlighted(extension) ? [StreamLanguage.define(MODES[extension])] : [];
    return EditorState.create({
        doc: text,
        extensions: [
            lineNumbers(),
            highlightActiveLine(),
            highlightActiveLineGutter(),
            history(),
            drawSelection(),
            indentOnInput(),
            indentUnit.of(extension === "go" ? "\t" : "    "),
            bracketMatching(),
            search({ top: true }),
            THEME,
            syntaxHighlighting(HIGHLIGHT),
            ...mode,
            // Escape and then Tab leaves the editor (WCAG 2.1.2), which EditorView does itself.
            keymap.of([...defaultKeymap, ...historyKeymap, ...searchKeymap, indentWithTab]),
            EditorView.contentAttributes.of({ "aria-label": label }),
            EditorView.updateListener.of((update) => {
                if (update.docChanged) onChange(update.state.doc.toString());
            }),
        ],
    });
}

/** An editor in a shadow root, where CodeMirror adopts its style sheets as objects: the page's policy forbids `<style>`. */
export function createView(root, state) {
    return new EditorView({ state, root, parent: root });
}
