// A table of many things: filtered, sorted, shown page by page; rows are kept and only their figures change.

import { el, fill, setText, state } from "./dom.js";

/**
 * @template Row
 * @typedef {object} Column
 * @property {string} id
 * @property {string} title
 * @property {string} [hint] what it means
 * @property {(row: Row) => string | number | null} [value] to sort by; without it the column cannot be sorted by
 * @property {(row: Row) => string} [text] what is written, unless `cell` is given
 * @property {() => {element: Element, update: (row: Row) => void}} [cell] makes a cell that shows more than a text
 * @property {boolean} [isNumber]
 */

const PAGE = 50;
const FEW = 5; // rows need no filter
const ORDER_HOLDS = 10_000; // milliseconds: rows that change places every second cannot be read

/** @template Row */
export class Table {
  /**
   * @param {object} options
   * @param {string} options.label the name of the table for those who do not see it
   * @param {Column<Row>[]} options.columns the first is the row's name
   * @param {(row: Row) => string} options.key
   * @param {(row: Row) => string} options.search the text that the filter looks in
   * @param {{by: string, isDown: boolean}} options.sort
   * @param {(row: Row) => {element: Element, update: (row: Row) => void}} [options.details] what unfolds below a row
   * @param {() => Element} options.empty what is shown without rows
   * @param {string} [options.filter] the filter's text at first
   * @param {(text: string) => void} [options.onFilter]
   */
  constructor(options) {
    this.options = options;
    this.sort = { ...options.sort };
    this.filter = options.filter ?? "";
    this.page = 0;
    /** @type {Row[]} */
    this.rows = [];
    /** @type {string[]} */
    this.order = [];
    this.known = -1; // how many rows there were when they were put in order
    this.orderedAt = -Infinity;
    /** @type {Map<string, ReturnType<Table<Row>["makeRow"]>>} */
    this.made = new Map();
    /** @type {Set<string>} */
    this.unfolded = new Set();
    this.build();
  }

  build() {
    const { label, columns } = this.options;
    this.search = /** @type {HTMLInputElement} */ (
      el("input", { type: "search", class: "field", "data-find": true, placeholder: "Filter", "aria-label": `Filter ${label.toLowerCase()}`, value: this.filter })
    );
    this.search.addEventListener("input", () => this.setFilter(this.search.value.trim()));
    this.heads = columns.map((column) => this.makeHead(column));
    this.body = el("tbody", { role: "rowgroup" });
    this.count = el("span", { class: "muted small number", role: "status" });
    this.sorter = this.makeSorter();
    this.tools = el("div", { class: "table-tools" }, this.search, this.sorter, this.count);
    const table = el(
      "table",
      { class: "table", role: "table", "aria-label": label },
      el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, this.heads.map(({ element }) => element))),
      this.body,
    );
    this.place = el("div", { class: "table-place", tabIndex: -1 }, table);
    this.none = el("div", { hidden: true });
    this.previous = /** @type {HTMLButtonElement} */ (el("button", { type: "button", class: "button", onclick: () => this.turn(-1) }, "Previous"));
    this.following = /** @type {HTMLButtonElement} */ (el("button", { type: "button", class: "button", onclick: () => this.turn(1) }, "Next"));
    this.at = el("span", { class: "number" });
    this.pager = el("nav", { class: "pager", "aria-label": `Pages of ${label.toLowerCase()}`, hidden: true }, this.previous, this.at, this.following);
    this.element = el("div", { class: "table-block" }, this.place, this.none, this.pager);
    this.showSort();
  }

  /** @param {Column<Row>} column */
  makeHead(column) {
    const attributes = { role: "columnheader", scope: "col", class: column.isNumber ? "is-number" : "", title: column.hint };
    if (!column.value) return { id: column.id, element: el("th", attributes, column.title), mark: null };
    const mark = el("span", { class: "sort-mark", "aria-hidden": "true" });
    const button = el("button", { type: "button", class: "sort", onclick: () => this.sortBy(column) }, column.title, mark);
    return { id: column.id, element: el("th", attributes, button), mark };
  }

  /** For narrow windows, where the rows are cards and the heads are not shown. */
  makeSorter() {
    const options = this.options.columns.filter(({ value }) => value).map(({ id, title }) => el("option", { value: id }, title));
    const select = /** @type {HTMLSelectElement} */ (el("select", { class: "field table-sorter", "aria-label": "Sort by" }, options));
    select.addEventListener("change", () => {
      const column = this.options.columns.find(({ id }) => id === select.value);
      if (column) this.sortBy(column);
    });
    return select;
  }

  /** @param {Column<Row>} column */
  sortBy(column) {
    const isSame = this.sort.by === column.id;
    this.sort = { by: column.id, isDown: isSame ? !this.sort.isDown : Boolean(column.isNumber) };
    this.page = 0;
    this.showSort();
    this.show(true);
  }

  showSort() {
    for (const { id, element, mark } of this.heads) {
      if (!mark) continue;
      const isBy = id === this.sort.by;
      element.setAttribute("aria-sort", isBy ? (this.sort.isDown ? "descending" : "ascending") : "none");
      setText(mark, isBy ? (this.sort.isDown ? "↓" : "↑") : "");
    }
    /** @type {HTMLSelectElement} */ (this.sorter).value = this.sort.by;
  }

  /** @param {string} text */
  setFilter(text) {
    this.filter = text;
    this.page = 0;
    this.options.onFilter?.(text);
    this.show(true);
  }

  /** Show these rows. @param {Row[]} rows */
  update(rows) {
    this.rows = rows;
    this.show(false);
  }

  /** @param {boolean} isAsked whether the reader asked for another order */
  show(isAsked) {
    const { key, empty } = this.options;
    const byKey = new Map(this.rows.map((row) => [key(row), row]));
    if (isAsked || this.mayReorder(byKey)) this.reorder(byKey);
    const pages = Math.max(1, Math.ceil(this.order.length / PAGE));
    this.page = Math.min(this.page, pages - 1);
    const shown = this.order.slice(this.page * PAGE, (this.page + 1) * PAGE);
    this.showRows(shown, byKey);
    this.showCount(pages);
    this.place.hidden = shown.length === 0;
    this.none.hidden = shown.length > 0;
    if (!shown.length) fill(this.none, this.rows.length ? state("empty", `Nothing matches “${this.filter}”`, { label: "Show all", onclick: () => this.clear() }) : empty());
  }

  clear() {
    this.search.value = "";
    this.setFilter("");
    this.search.focus();
  }

  /** @param {Map<string, Row>} byKey */
  mayReorder(byKey) {
    const isSame = byKey.size === this.known && this.order.every((one) => byKey.has(one));
    if (!isSame) return true;
    const isUsed = this.body.matches(":hover") || this.body.contains(document.activeElement);
    return !isUsed && performance.now() - this.orderedAt > ORDER_HOLDS;
  }

  /** @param {Map<string, Row>} byKey */
  reorder(byKey) {
    const { columns, search } = this.options;
    const value = columns.find(({ id }) => id === this.sort.by)?.value ?? (() => null);
    const words = this.filter.toLowerCase().split(/\s+/).filter(Boolean);
    const found = [...byKey].filter(([, row]) => {
      const text = search(row).toLowerCase();
      return words.every((word) => text.includes(word));
    });
    const ranked = found.map(([key, row]) => ({ key, value: value(row) }));
    ranked.sort((one, other) => compared(one, other, this.sort.isDown));
    this.order = ranked.map(({ key }) => key);
    this.known = byKey.size;
    this.orderedAt = ranked.some((one) => one.value !== null) ? performance.now() : -Infinity; // without figures it is no order yet
  }

  /** @param {string[]} shown @param {Map<string, Row>} byKey */
  showRows(shown, byKey) {
    const wanted = new Set(shown);
    for (const [key, made] of this.made) {
      if (wanted.has(key)) continue;
      made.element.remove();
      made.below?.remove();
      this.made.delete(key);
    }
    const elements = [];
    for (const key of shown) {
      const row = /** @type {Row} */ (byKey.get(key));
      let made = this.made.get(key);
      if (!made) this.made.set(key, (made = this.makeRow(key, row)));
      made.update(row);
      elements.push(made.element);
      if (made.below) elements.push(made.below);
    }
    if (elements.length !== this.body.children.length || elements.some((element, at) => this.body.children[at] !== element)) {
      keepingFocus(() => this.body.replaceChildren(...elements));
    }
  }

  /** @param {string} key @param {Row} row */
  makeRow(key, row) {
    const { columns, details: makesDetails } = this.options;
    const name = String(columns[0].value?.(row) ?? key);
    const cells = columns.map((column, index) => this.makeCell(column, index === 0, key, name));
    const unfolding = makesDetails ? { class: "unfolds", onclick: (/** @type {MouseEvent} */ event) => isOnRow(event) && this.toggle(key) } : {};
    const element = el("tr", { role: "row", ...unfolding }, cells.map((cell) => cell.element));
    /** @type {{element: HTMLElement, below: HTMLElement | null, update: (row: Row) => void, unfold: () => void}} */
    const made = { element, below: null, update: () => {}, unfold: () => {} };
    /** @type {{element: Element, update: (row: Row) => void} | null} */
    let details = null;
    let latest = row;
    made.update = (now) => {
      latest = now;
      for (const cell of cells) cell.update(now);
      if (made.below) details?.update(now);
    };
    made.unfold = () => {
      const isOpen = this.unfolded.has(key);
      element.classList.toggle("is-unfolded", isOpen);
      element.querySelector(".unfold")?.setAttribute("aria-expanded", String(isOpen));
      if (isOpen && !made.below) {
        details = this.options.details?.(latest) ?? null;
        made.below = el("tr", { role: "row", class: "row-details" }, el("td", { role: "cell", colspan: cells.length }, details?.element));
        details?.update(latest);
      } else if (!isOpen) {
        made.below?.remove();
        made.below = null;
        details = null;
      }
    };
    made.unfold();
    return made;
  }

  /** @param {Column<Row>} column @param {boolean} isFirst @param {string} key @param {string} name */
  makeCell(column, isFirst, key, name) {
    const inner = column.cell?.() ?? textCell(column);
    const content = isFirst && this.options.details ? [this.unfoldButton(key, name), inner.element] : [inner.element];
    const attributes = { role: isFirst ? "rowheader" : "cell", "data-label": column.title, class: column.isNumber ? "is-number number" : "" };
    const element = el(isFirst ? "th" : "td", isFirst ? { ...attributes, scope: "row" } : attributes, el("div", { class: "cell" }, content));
    return { element, update: inner.update };
  }

  /** @param {string} key @param {string} name */
  unfoldButton(key, name) {
    const attributes = { "aria-expanded": String(this.unfolded.has(key)), "aria-label": `Details of ${name}`, onclick: () => this.toggle(key) };
    return el("button", { type: "button", class: "unfold", ...attributes });
  }

  /** @param {string} key */
  toggle(key) {
    if (!this.unfolded.delete(key)) this.unfolded.add(key);
    this.made.get(key)?.unfold();
    this.show(false);
  }

  /** @param {number} pages */
  showCount(pages) {
    const [all, found, from] = [this.rows.length, this.order.length, this.page * PAGE];
    const range = found > PAGE ? `${from + 1}–${Math.min(from + PAGE, found)} of ${found}` : `${found}`;
    setText(this.count, found === all ? range : `${range} (${all} in all)`);
    this.tools.classList.toggle("is-few", all <= FEW && !this.filter);
    this.pager.hidden = pages < 2;
    setText(this.at, `Page ${this.page + 1} of ${pages}`);
    this.previous.disabled = this.page === 0;
    this.following.disabled = this.page >= pages - 1;
  }

  /** @param {number} by */
  turn(by) {
    this.page += by;
    this.show(false);
    this.element.scrollIntoView({ block: "nearest" });
  }
}

/** @param {{key: string, value: string | number | null}} one @param {{key: string, value: string | number | null}} other @param {boolean} isDown */
export function compared(one, other, isDown) {
  const names = one.key < other.key ? -1 : one.key > other.key ? 1 : 0;
  if (one.value === null || other.value === null) return one.value === other.value ? names : one.value === null ? 1 : -1; // no figure: last
  const order = one.value < other.value ? -1 : one.value > other.value ? 1 : 0;
  return order === 0 ? names : isDown ? -order : order;
}

/** Whether a click is meant for the row: not for a control in it, and not the end of marking a text. @param {MouseEvent} event */
function isOnRow(event) {
  const isControl = event.target instanceof Element && event.target.closest("button, a") !== null;
  return !isControl && (getSelection()?.isCollapsed ?? true);
}

/** @template Row @param {Column<Row>} column */
function textCell(column) {
  const element = el("span", null);
  return { element, update: (/** @type {Row} */ row) => setText(element, column.text?.(row) ?? "") };
}

/** @param {() => void} change */
function keepingFocus(change) {
  const focused = document.activeElement;
  change();
  if (focused instanceof HTMLElement && focused !== document.activeElement && focused.isConnected) focused.focus({ preventScroll: true });
}
