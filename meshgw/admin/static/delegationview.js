// @ts-check
/** A delegation tree as a tree on the page; what it means is said by delegation.js. */

import { addressLabel, addressText, branches, explain, percent, taken } from "./delegation.js";
import { copy, el } from "./dom.js";

/**
 * @typedef {import("./delegation.js").TreeNode} TreeNode
 * @typedef {import("./delegation.js").BoundName} BoundName
 * @typedef {import("./delegation.js").Branch} Branch
 * @typedef {{isNew: (id: string, address: string) => boolean}} Known what was seen before, to mark addresses that have come since
 */

const MOST_ADDRESSES = 24;

/** Each kind by a mark and a word, so that nothing depends on colour. */
const KINDS = {
  leaf: { mark: "●", word: "bound" },
  neg: { mark: "○", word: "unknown" },
  fail: { mark: "✕", word: "fail" },
  empty: { mark: "∅", word: "no replicas" },
  exception: { mark: "!", word: "error" },
  alt: { mark: "|", word: "alternatives" },
  union: { mark: "&", word: "split" },
  delegate: { mark: "→", word: "" },
  transformation: { mark: "⇄", word: "transformed" },
};

const DEEP = 12; // levels that are set in; a dtab that leads in a circle has a hundred

/**
 * The items of the tree.
 * @param {TreeNode} root
 * @param {Known} known
 * @returns {HTMLElement}
 */
export function rootItem(root, known) {
  const way = taken(root);
  const branch = { node: root, order: null, weight: null, share: null };
  return item(branch, { way, known, key: "0", level: 1, index: 1, count: 1, before: "", entry: "" });
}

/**
 * @param {Branch} branch
 * @param {{way: Set<TreeNode>, known: Known, key: string, level: number, index: number, count: number, before: string, entry: string}} place
 *   `entry` is the one that the step before was made by: it is not told twice
 * @returns {HTMLElement}
 */
function item(branch, place) {
  const { node } = branch;
  const isTaken = place.way.has(node);
  const below = branches(node);
  const label = node.type === "transformation" ? "after" : "";
  const children = below.map((each, index) =>
    item(each, {
      ...place,
      key: `${place.key}.${index}`,
      level: place.level + 1,
      index: index + 1,
      count: below.length,
      before: label,
      entry: entryText(index > 0 ? below[index - 1].node : node),
    }),
  );
  return el(
    "li",
    {
      role: "treeitem",
      class: `node node-${node.type} ${isTaken ? "is-taken" : "is-idle"}`,
      "aria-level": place.level,
      "aria-posinset": place.index,
      "aria-setsize": place.count,
      "aria-expanded": below.length ? "true" : null,
      "aria-label": spoken(branch, isTaken),
      dataset: { place: place.key, prefix: node.dentry?.prefix ?? "", dst: node.dentry?.dst ?? "", copies: node.bound?.id ?? node.path },
    },
    row(branch, isTaken, place),
    below.length ? el("ul", { role: "group", class: place.level > DEEP ? "is-deep" : null }, children) : null,
  );
}

/** The entry by which a step was made. @param {TreeNode} node */
function entryText({ dentry, bound, tree }) {
  const made = dentry ?? (bound && tree?.dentry); // a transformation is told of without its own
  return made ? `${made.prefix} => ${made.dst}` : "";
}

/** @param {Branch} branch @param {boolean} isTaken @param {{known: Known, before: string, entry: string}} place */
function row(branch, isTaken, { known, before, entry }) {
  const { node } = branch;
  const by = entryText(node);
  const kind = KINDS[/** @type {keyof typeof KINDS} */ (node.type)] ?? { mark: "?", word: node.type };
  const text = node.type === "leaf" ? "" : explain(node);
  return el(
    "div",
    { class: "node-row" },
    el("span", { class: "twisty", "aria-hidden": "true" }),
    el("span", { class: "node-mark", "aria-hidden": "true" }, kind.mark),
    el(
      "div",
      { class: "node-body" },
      el(
        "div",
        { class: "node-line" },
        position(branch, before),
        el("code", { class: "node-path" }, node.path),
        kind.word ? el("span", { class: "node-kind" }, kind.word) : null,
        isTaken ? null : el("span", { class: "node-idle" }, "not taken"),
        node.type === "leaf" ? copyButton(node.bound?.id ?? node.path) : null,
      ),
      by && by !== entry ? el("div", { class: "node-entry" }, "by ", el("code", null, by)) : null,
      text ? el("p", { class: "node-text" }, text) : null,
      node.bound ? boundPart(node, node.bound, known) : null,
    ),
  );
}

/** @param {Branch} branch @param {string} before */
function position({ order, weight, share }, before) {
  if (order !== null) return el("span", { class: "node-order" }, `${order}.`);
  if (weight !== null && share !== null)
    return el(
      "span",
      { class: "node-share", title: `weight ${weight}` },
      percent(share),
      el("span", { class: "node-weight" }, `×${weight}`),
    );
  return before ? el("span", { class: "node-order" }, before) : null;
}

/** @param {string} text */
function copyButton(text) {
  // not in the tab order: Enter on the step does the same
  return el(
    "button",
    { type: "button", class: "bound-copy", "aria-label": `Copy ${text}`, tabIndex: -1, onclick: () => void copy(text) },
    "copy",
  );
}

/** What a name leads to: of a leaf, or of a transformation before it. @param {TreeNode} node @param {BoundName} bound @param {Known} known */
function boundPart(node, bound, known) {
  const isBefore = node.type === "transformation";
  const name = isBefore || bound.id !== node.path ? el("span", null, isBefore ? "before: " : "as ", el("code", null, bound.id)) : null;
  const rest = bound.path && bound.path !== "/" ? el("span", null, "left over: ", el("code", null, bound.path)) : null;
  return el(
    "div",
    { class: "bound" },
    name || rest ? el("div", { class: "bound-name" }, name, rest) : null,
    el("p", { class: `bound-state bound-${stateOf(bound)}` }, addressText(bound.addr)),
    addresses(bound, known),
  );
}

/** @param {BoundName} bound */
function stateOf({ addr }) {
  if (addr.type !== "bound") return addr.type;
  return addr.stale ? "stale" : addr.addrs?.length ? "bound" : "empty";
}

/** @param {BoundName} bound @param {Known} known */
function addresses(bound, known) {
  const all = bound.addr.addrs ?? [];
  if (all.length === 0) return null;
  const list = el("ul", { class: "ports", "aria-label": "addresses" });
  /** @param {typeof all} some */
  const show = (some) => list.append(...some.map((each) => address(bound.id, each, known)));
  show(all.slice(0, MOST_ADDRESSES));
  const rest = all.slice(MOST_ADDRESSES);
  if (rest.length) {
    /** @type {HTMLElement} */
    const more = el(
      "li",
      null,
      el("button", { type: "button", class: "link-button", onclick: () => (more.remove(), show(rest)) }, `and ${rest.length} more`),
    );
    list.append(more);
  }
  return list;
}

/** @param {string} id @param {import("./delegation.js").Address} one @param {Known} known */
function address(id, one, known) {
  const { text, weight, notes } = addressLabel(one);
  return el(
    "li",
    { class: known.isNew(id, text) ? "address is-new" : "address", title: notes.join(", ") || null },
    el("code", null, text),
    weight === null ? null : el("span", { class: "address-weight" }, `×${weight}`),
    notes.length ? el("span", { class: "address-notes" }, notes.join(", ")) : null,
  );
}

/** What a screen reader says of an item. @param {Branch} branch @param {boolean} isTaken */
function spoken({ node, order, share }, isTaken) {
  const parts = [
    order === null ? "" : `alternative ${order}`,
    share === null ? "" : percent(share),
    node.path,
    node.dentry ? `by ${node.dentry.prefix} => ${node.dentry.dst}` : "",
    node.type === "leaf" ? `bound to ${node.bound?.id}: ${addressText(node.bound?.addr)}` : explain(node),
    isTaken ? "" : "not taken",
  ];
  return parts.filter(Boolean).join(", ");
}

/**
 * Remembers the addresses of the answer before, to tell which have come since.
 */
export class Seen {
  constructor() {
    /** @type {Map<string, Set<string>>} */
    this.before = new Map();
    /** @type {Map<string, Set<string>>} */
    this.now = new Map();
  }

  /** Begin with the next answer; `isSame` tells whether it is to the same question. @param {boolean} isSame */
  turn(isSame) {
    this.before = isSame ? this.now : new Map();
    this.now = new Map();
  }

  /** @param {string} id @param {string} address @returns {boolean} */
  isNew(id, address) {
    const now = this.now.get(id) ?? new Set();
    this.now.set(id, now.add(address));
    const before = this.before.get(id);
    return before !== undefined && !before.has(address);
  }
}
