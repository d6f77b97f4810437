// @ts-check
/**
 * The text of a dtab taken apart into its entries, for showing and highlighting.
 *
 * The gateway decides what is valid; this reading is lenient. It knows what matters for finding entries: `;` ends one, `=>` parts it,
 * and `#` begins a comment only where white space may stand, for it is a label character too (`/#/io.l5d.fs`).
 */

/**
 * @typedef {{prefix: string, dst: string, text: string, line: number}} Entry
 *   `line` is where the entry begins, counted from 1.
 */

const LABEL = /[0-9A-Za-z_:.#$%\\-]/;

/**
 * The entries of a dtab, in its order. What is no entry is left out.
 * @param {string} text
 * @returns {Entry[]}
 */
export function entries(text) {
  const clean = blankComments(text);
  /** @type {Entry[]} */
  const found = [];
  let start = 0;
  for (const piece of clean.split(";")) {
    const arrow = piece.indexOf("=>");
    if (arrow >= 0) {
      const lead = piece.length - piece.trimStart().length;
      const prefix = piece.slice(0, arrow).trim();
      const dst = piece
        .slice(arrow + 2)
        .trim()
        .replace(/\s+/g, " ");
      found.push({ prefix, dst, text: `${prefix} => ${dst}`, line: lineOf(clean, start + lead) });
    }
    start += piece.length + 1;
  }
  return found;
}

/** The text with comments turned to blanks, so that positions stay. @param {string} text */
function blankComments(text) {
  let out = "";
  for (let at = 0; at < text.length; at += 1) {
    const before = text[at - 1] ?? "";
    if (text[at] !== "#" || before === "/" || LABEL.test(before)) {
      out += text[at];
      continue;
    }
    const newline = text.indexOf("\n", at);
    const end = newline < 0 ? text.length : newline;
    out += " ".repeat(end - at);
    at = end - 1;
  }
  return out;
}

/** @param {string} text @param {number} offset */
function lineOf(text, offset) {
  return text.slice(0, offset).split("\n").length;
}

/**
 * One entry a line, as people write dtabs.
 * @param {string} text
 * @returns {string}
 */
export function laidOut(text) {
  return entries(text)
    .map((entry) => `${entry.text};`)
    .join("\n");
}

/**
 * The place of the entry that the gateway names `dentry`, or -1. The gateway shows entries in canonical text, people write them as
 * they like; where both differ in more than blanks and weights, the prefix decides if it is the only one of its kind.
 * @param {Entry[]} list
 * @param {{prefix: string, dst: string}} dentry
 * @returns {number}
 */
export function placeOf(list, dentry) {
  const wanted = canonical(dentry.dst);
  // of equal entries the last prevails
  const same = list.findLastIndex((entry) => entry.prefix === dentry.prefix && canonical(entry.dst) === wanted);
  if (same >= 0) return same;
  const alike = list.flatMap((entry, index) => (entry.prefix === dentry.prefix ? [index] : []));
  return alike.length === 1 ? alike[0] : -1;
}

/** @param {string} dst */
function canonical(dst) {
  return dst.replace(/\s+/g, "").replace(/(^|[&|(])(\d*\.?\d*)\*/g, (_all, before, number) => {
    const weight = Number(number);
    return weight === 1 ? before : `${before}${weight.toFixed(2)}*`;
  });
}

/**
 * Where a parse error points, from the gateway's message, or null if it names no place.
 * @param {string} message
 * @returns {{line: number, column: number, what: string} | null}
 */
export function errorPlace(message) {
  const match = /^(?:Invalid (?:dtab|path): )?(.*?) at line (\d+), column (\d+)/s.exec(message);
  return match ? { what: match[1], line: Number(match[2]), column: Number(match[3]) } : null;
}

/**
 * The line at fault with a caret under the column; tabs are kept, so that the caret stands right.
 * @param {string} text
 * @param {{line: number, column: number}} place
 * @returns {{source: string, caret: string}}
 */
export function caretAt(text, place) {
  const source = text.split("\n")[place.line - 1] ?? "";
  const margin = source.slice(0, place.column - 1).replace(/[^\t]/g, " ");
  return { source, caret: `${margin.padEnd(place.column - 1)}^` };
}

/**
 * The character at which a place lies.
 * @param {string} text
 * @param {{line: number, column: number}} place
 * @returns {number}
 */
export function offsetOf(text, place) {
  const before = text.split("\n").slice(0, place.line - 1);
  return Math.min(text.length, before.reduce((sum, line) => sum + line.length + 1, 0) + place.column - 1);
}
