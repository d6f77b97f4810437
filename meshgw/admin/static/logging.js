// @ts-check
/** The loggers of the gateway with buttons for their levels. A change holds until the gateway ends; the configuration is not written. */

import { LEVELS, matching, rows, withLevel } from "./levels.js";
import { ApiError, api, el, fill, mountShell, poll, router, setText, showFreshness, state, toast } from "./shell.js";

/**
 * @typedef {import("./levels.js").Logger} Logger
 * @typedef {import("./levels.js").Row} Row
 */

const EVERY = 5_000;
const SETTLING = 250; // arrow keys walk through levels: only where they stop counts

class LoggingPage {
  /** @param {HTMLElement} content */
  constructor(content) {
    /** @type {Logger[]} */
    this.loggers = [];
    /** @type {Map<string, HTMLElement>} */
    this.items = new Map();
    /** @type {Map<string, {before: Logger[], timer: number}>} */
    this.changing = new Map();
    this.isReadOnly = false;
    this.parts = loggingParts(content, () => this.typed());
    this.polling = poll((signal) => this.read(signal), { every: EVERY, onFreshness: showFreshness });
    router.onChange(() => this.readAddress());
  }

  /** @param {AbortSignal} signal */
  async read(signal) {
    try {
      const loggers = await api("/logging.json", { signal });
      if (this.changing.size === 0) this.take(loggers);
    } catch (error) {
      if (error instanceof ApiError && this.loggers.length === 0) {
        fill(this.parts.place, state("error", { title: "The loggers cannot be read", text: error.message }));
      }
      throw error;
    }
  }

  /** @param {Logger[]} loggers */
  take(loggers) {
    this.loggers = loggers;
    this.parts.place.hidden = true;
    this.parts.body.hidden = false;
    this.show();
  }

  show() {
    const all = rows(this.loggers);
    const shown = matching(all, this.parts.find.value);
    setText(this.parts.count, shown.length === all.length ? `${all.length} loggers` : `${shown.length} of ${all.length} loggers`);
    const items = shown.map((row) => this.item(row));
    // items keep their place while they are the same, so that the focus stays in the group it is in
    if (items.length !== this.parts.list.children.length || items.some((item, index) => this.parts.list.children[index] !== item)) {
      this.parts.list.replaceChildren(...items);
    }
    this.parts.list.hidden = items.length === 0;
    fill(
      this.parts.empty,
      items.length
        ? null
        : state("empty", `No logger is called ${this.parts.find.value}`, { label: "Show all", onclick: () => this.clear() }),
    );
  }

  /** @param {Row} row */
  item(row) {
    let item = this.items.get(row.name);
    if (!item) {
      item = this.newItem(row);
      this.items.set(row.name, item);
    }
    const isChanging = this.changing.has(row.name);
    item.classList.toggle("is-inherited", row.isInherited);
    item.classList.toggle("is-changing", isChanging);
    const from = item.querySelector(".logger-from");
    if (from) setText(from, isChanging ? "changing" : origin(row));
    for (const input of item.querySelectorAll("input")) {
      input.checked = input.value === row.level;
      input.disabled = this.isReadOnly;
    }
    return item;
  }

  /** @param {Row} row */
  newItem({ name, depth }) {
    const levels = LEVELS.map((level) =>
      el(
        "label",
        { class: `level level-${level.toLowerCase()}` },
        el("input", { type: "radio", name: `level ${name}`, value: level, onchange: () => this.choose(name, level) }),
        el("span", null, level),
      ),
    );
    return el(
      "li",
      { class: "logger", style: { "--depth": Math.min(depth, 6) } },
      el("div", { class: "logger-head" }, el("code", { class: "logger-name" }, name), el("span", { class: "logger-from small muted" })),
      el("div", { class: "levels", role: "radiogroup", "aria-label": `Level of ${name}` }, levels),
    );
  }

  /** Show a level as chosen at once; it is sent when the choice has settled. @param {string} name @param {string} level */
  choose(name, level) {
    const changing = this.changing.get(name);
    clearTimeout(changing?.timer);
    const before = changing?.before ?? this.loggers;
    this.loggers = withLevel(before, name, level);
    this.changing.set(name, { before, timer: window.setTimeout(() => void this.send(name, level), SETTLING) });
    this.show();
  }

  /** @param {string} name @param {string} level */
  async send(name, level) {
    const changing = this.changing.get(name);
    try {
      const loggers = await api("/logging.json", { body: new URLSearchParams({ logger: name, level }) });
      if (this.changing.get(name) !== changing) return; // another choice has been made meanwhile
      this.changing.delete(name);
      this.take(loggers);
      toast(`${name} logs at ${level}`);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (this.changing.get(name) !== changing) return;
      this.changing.delete(name);
      this.loggers = changing?.before ?? this.loggers;
      this.refused(name, error);
      this.show();
      this.polling.now();
    }
  }

  /** @param {string} name @param {ApiError} error */
  refused(name, { status, message }) {
    if (status === 401 || status === 403) {
      this.isReadOnly = true;
      const why = message.replace(/^refused: /, "");
      const text = `${why.charAt(0).toUpperCase()}${why.slice(1)}. Levels can be looked at, and changed by an operator.`;
      fill(this.parts.notice, state("info", { title: "Read only", text }, { label: "Try again", onclick: () => this.allow() }));
      return;
    }
    const why = status === 404 ? "changes are switched off (admin.security.controlEnabled)" : message;
    toast(`The level of ${name} stays as it was: ${why}`, { kind: "error" });
  }

  allow() {
    this.isReadOnly = false;
    fill(this.parts.notice);
    this.show();
    this.parts.find.focus();
  }

  typed() {
    router.set({ text: this.parts.find.value }, { replace: true });
    this.show();
  }

  clear() {
    this.parts.find.value = "";
    this.typed();
    this.parts.find.focus();
  }

  readAddress() {
    this.parts.find.value = router.get("text") ?? "";
    this.show();
  }
}

/** Put the elements into the page; those that change are given back. @param {HTMLElement} content @param {() => void} typed */
function loggingParts(content, typed) {
  const label = "Find a logger or level";
  const field = { type: "search", class: "field", id: "find", placeholder: label, "aria-label": label, value: router.get("text") ?? "" };
  const find = /** @type {HTMLInputElement} */ (el("input", { ...field, oninput: typed }));
  const count = el("span", { class: "muted small", role: "status" });
  const notice = el("div", { role: "status" });
  const list = el("ul", { class: "loggers card", "aria-label": "Loggers" });
  const empty = el("div");
  const filters = el("div", { class: "filters" }, find, count);
  const body = el("div", { class: "section", hidden: true }, filters, notice, list, empty);
  const place = el("div", null, state("loading", "Asking for the loggers"));
  fill(content, place, body);
  return { find, count, notice, list, empty, body, place };
}

/** Where a level comes from, in words. @param {Row} row */
function origin({ parent, isInherited }) {
  if (parent === null) return "holds for all others";
  return isInherited ? `inherited from ${parent}` : "set here";
}

new LoggingPage(
  mountShell({ page: "logging", title: "Logging", subtitle: "What is logged, by logger; changes hold until the gateway ends" }),
);
