// @ts-check
/** The dtabs of a router on the page: the interpreter's, the router's own, and what is tried out instead of it. */

import { el, fill } from "./dom.js";
import { caretAt, entries, errorPlace, laidOut, offsetOf, placeOf } from "./dtab.js";

/**
 * @typedef {import("./dtab.js").Entry} Entry
 * @typedef {{prefix: string, dst: string}} Dentry
 * @typedef {{list: Entry[], items: HTMLElement[]}} Shown
 */

export class DtabPanel {
  /** @param {{onTrial: (text: string | null) => void}} listeners `onTrial` is told each change of what is tried; null is the router's own */
  constructor({ onTrial }) {
    this.onTrial = onTrial;
    this.base = "";
    /** @type {string | null} */
    this.trial = null;
    this.isEditing = false;
    /** @type {Shown[]} */
    this.shown = [];
    /** @type {import("./routers.js").Router | undefined} */
    this.router = undefined;
    this.parts = panelParts({ toggle: () => this.toggle(), giveUp: () => this.giveUp(), typed: () => this.typed() });
    this.element = this.parts.element;
  }

  /** Show a router's dtabs. @param {import("./routers.js").Router | undefined} router */
  setBase(router) {
    this.base = router?.dtab ?? "";
    this.router = router;
    this.show();
  }

  /** Show what is tried; null is nothing. @param {string | null} text */
  setTrial(text) {
    this.trial = text;
    if (text !== null) {
      this.isEditing = true;
    }
    if (document.activeElement !== this.parts.area) {
      this.parts.area.value = text ?? laidOut(this.base);
    }
    this.show();
  }

  /** The dtab that is asked about. */
  get text() {
    return this.trial ?? this.base;
  }

  show() {
    const isTrial = this.trial !== null;
    this.parts.badge.hidden = !isTrial;
    this.parts.reset.hidden = !isTrial;
    this.parts.editor.hidden = !this.isEditing;
    this.parts.edit.setAttribute("aria-expanded", String(this.isEditing));
    this.parts.edit.textContent = this.isEditing ? "Close editor" : "Try changes";
    this.parts.area.rows = Math.min(20, Math.max(5, this.parts.area.value.split("\n").length + 1));
    this.shown = [];
    fill(
      this.parts.lists,
      this.interpreterPart(),
      this.list(isTrial ? "What is tried" : "Router", this.text, true),
      el("p", { class: "small muted" }, "The later an entry stands, the earlier it is tried."),
    );
  }

  /** What the interpreter adds; it stands before the router's own, which therefore prevails. */
  interpreterPart() {
    const { kind, interpreterDtab, problem } = this.router ?? {};
    const trouble = problem ? el("p", { class: "problem small" }, problem) : null;
    if (typeof interpreterDtab !== "string") return trouble;
    return [this.list(`Interpreter ${kind}`, interpreterDtab, false), trouble];
  }

  /** @param {string} title @param {string} text @param {boolean} isOwn */
  list(title, text, isOwn) {
    const list = entries(text);
    const items = list.map((entry) =>
      el(
        "li",
        { class: "entry" },
        el("code", null, el("span", { class: "entry-prefix" }, entry.prefix), " => ", el("span", { class: "entry-dst" }, entry.dst)),
      ),
    );
    // the router's own entries prevail, and are looked at first
    if (isOwn) {
      this.shown.unshift({ list, items });
    } else {
      this.shown.push({ list, items });
    }
    return el(
      "div",
      { class: "dtab-part" },
      el("h3", null, title),
      items.length
        ? el("ol", { class: "entries" }, items)
        : el("p", { class: "muted small" }, "No entries: names lead straight to namers."),
    );
  }

  /** Point at the entry by which a step was made. @param {Dentry | null} dentry */
  point(dentry) {
    const chosen = dentry && this.itemOf(dentry);
    for (const item of this.shown.flatMap(({ items }) => items)) {
      item.classList.toggle("is-pointed", item === chosen);
    }
    if (chosen) reveal(chosen);
  }

  /** Mark the entries that requests follow. @param {Dentry[]} dentries */
  mark(dentries) {
    const used = new Set(dentries.map((dentry) => this.itemOf(dentry)));
    for (const item of this.shown.flatMap(({ items }) => items)) {
      const isNew = used.has(item) && !item.classList.contains("is-used");
      item.classList.toggle("is-used", used.has(item));
      if (isNew) reveal(item); // only then: the reader may have scrolled elsewhere
    }
  }

  /** @param {Dentry} dentry @returns {HTMLElement | null} */
  itemOf(dentry) {
    for (const { list, items } of this.shown) {
      const at = placeOf(list, dentry);
      if (at >= 0) return items[at];
    }
    return null;
  }

  /** Show the gateway's complaint about the dtab, or with null take it away. @param {string | null} message */
  complain(message) {
    this.parts.problem.hidden = message === null;
    this.parts.area.setAttribute("aria-invalid", String(message !== null));
    if (message === null) {
      fill(this.parts.problem);
      return;
    }
    this.isEditing = true;
    this.parts.editor.hidden = false;
    const place = errorPlace(message);
    if (place === null) {
      fill(this.parts.problem, el("p", null, message));
      return;
    }
    const { source, caret } = caretAt(this.text, place);
    fill(
      this.parts.problem,
      el("p", null, `Line ${place.line}, column ${place.column}: ${place.what}.`),
      el("pre", { "aria-hidden": "true" }, `${source}\n`, el("span", { class: "caret" }, caret)),
      el("button", { type: "button", class: "button", onclick: () => this.select(place) }, "Go there"),
    );
  }

  /** @param {{line: number, column: number}} place */
  select(place) {
    const at = offsetOf(this.parts.area.value, place);
    this.parts.area.focus();
    this.parts.area.setSelectionRange(at, Math.min(at + 1, this.parts.area.value.length));
  }

  toggle() {
    this.isEditing = !this.isEditing;
    if (this.trial === null) {
      this.parts.area.value = laidOut(this.base);
    }
    this.show();
    if (this.isEditing) {
      this.parts.area.focus();
      this.parts.area.scrollLeft = 0; // the caret is behind the last entry, whose beginning is to be seen
    }
  }

  typed() {
    const text = this.parts.area.value;
    this.trial = text === laidOut(this.base) ? null : text;
    this.show();
    this.onTrial(this.trial);
  }

  giveUp() {
    this.trial = null;
    this.parts.area.value = laidOut(this.base);
    this.isEditing = false;
    this.complain(null);
    this.show();
    this.parts.edit.focus();
    this.onTrial(null);
  }
}

/** Scroll the list of an entry, and nothing else, so that the entry is in sight. @param {HTMLElement} item */
function reveal(item) {
  const list = item.parentElement;
  if (!list) return;
  const [all, own] = [list.getBoundingClientRect(), item.getBoundingClientRect()];
  if (own.top < all.top || own.bottom > all.bottom) list.scrollTop += (own.top + own.bottom - all.top - all.bottom) / 2;
}

/** @param {{toggle: () => void, giveUp: () => void, typed: () => void}} listeners */
function panelParts({ toggle, giveUp, typed }) {
  const badge = el("span", { class: "badge badge-warn", hidden: true }, "trial, not saved");
  const edit = /** @type {HTMLButtonElement} */ (
    el(
      "button",
      { type: "button", class: "button", "aria-expanded": "false", "aria-controls": "dtab-editor", onclick: toggle },
      "Try changes",
    )
  );
  const reset = el("button", { type: "button", class: "button", hidden: true, onclick: giveUp }, "Reset");
  const area = /** @type {HTMLTextAreaElement} */ (
    el("textarea", {
      class: "field dtab-text",
      id: "dtab-text",
      spellcheck: "false",
      autocapitalize: "off",
      autocomplete: "off",
      "aria-describedby": "dtab-hint dtab-problem",
      oninput: typed,
    })
  );
  const problem = el("div", { id: "dtab-problem", class: "dtab-problem", role: "alert", hidden: true });
  const editor = el(
    "div",
    { id: "dtab-editor", class: "dtab-editor", hidden: true },
    el("label", { for: "dtab-text" }, "Dtab to try"),
    area,
    el(
      "p",
      { id: "dtab-hint", class: "small muted" },
      "Entries end with a semicolon. Nothing is saved; the gateway only answers what it would do.",
    ),
    problem,
  );
  const lists = el("div", { class: "dtab-lists" });
  const element = el(
    "section",
    { class: "card dtab-card section", "aria-labelledby": "dtab-title" },
    el("div", { class: "section-head" }, el("h2", { id: "dtab-title" }, "Dtab ", badge), el("div", { class: "dtab-tools" }, reset, edit)),
    editor,
    lists,
  );
  return { badge, edit, reset, area, problem, editor, lists, element };
}
