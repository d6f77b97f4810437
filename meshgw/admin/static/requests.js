// @ts-check
/** The latest requests, newest first, with filters that are part of the address. */

import { placeUrl } from "./place.js";
import { FILTERS, clock, duration, keyOf, outcome } from "./requestrows.js";
import { ApiError, api, copy, el, fill, mountShell, poll, router, routers, setText, showFreshness, state } from "./shell.js";

/** @typedef {import("./requestrows.js").Row} Row */

const EVERY = 2_000;
const MOST = 200;
const TYPING = 250;
const KIND = "io.l5d.recentRequests";
const YAML = `telemetry:\n- kind: ${KIND}\n  sampleRate: 1.0\n  capacity: 100`;

class RequestsPage {
  /** @param {HTMLElement} content */
  constructor(content) {
    /** @type {Set<string>} */
    this.open = new Set();
    /** @type {Row[]} */
    this.rows = [];
    this.shown = "";
    this.timer = 0;
    this.isAsking = false;
    this.underWay = new AbortController();
    this.parts = requestsParts(content, { typed: () => this.typed(), chosen: () => this.chosen(), toggle: () => this.toggle() });
    this.readAddress();
    this.polling = poll((signal) => this.read(signal), { every: EVERY, onFreshness: showFreshness });
    router.onChange(() => (this.readAddress(), this.anew()));
  }

  readAddress() {
    this.parts.fields.text.value = router.get("text") ?? "";
    this.parts.fields.router.value = router.get("router") ?? "";
    this.parts.fields.status.value = router.get("failed") === "true" ? "failed" : (router.get("status") ?? "");
    fill(
      this.parts.chips,
      ["service", "client"].map((name) => {
        const value = router.get(name);
        return value === null
          ? null
          : el(
              "button",
              { type: "button", class: "chip", onclick: () => this.drop(name), title: "Take this filter away" },
              `${name} `,
              el("code", null, value),
              " ✕",
            );
      }),
    );
  }

  chosen() {
    const outcomes = this.parts.fields.status.value;
    router.set({
      router: this.parts.fields.router.value,
      status: outcomes === "failed" ? null : outcomes,
      failed: outcomes === "failed" ? "true" : null,
      text: this.parts.fields.text.value,
    });
    this.anew();
  }

  typed() {
    clearTimeout(this.timer);
    this.timer = window.setTimeout(() => {
      router.set({ text: this.parts.fields.text.value }, { replace: true });
      this.anew();
    }, TYPING);
  }

  /** @param {string} name */
  drop(name) {
    router.set({ [name]: null });
    this.readAddress();
    this.anew();
  }

  toggle() {
    const isPaused = this.parts.pause.getAttribute("aria-pressed") === "true";
    this.parts.pause.setAttribute("aria-pressed", String(!isPaused));
    setText(this.parts.pause, isPaused ? "Pause" : "Go on");
    if (isPaused) this.polling.resume();
    else this.polling.pause();
  }

  /** The filters have changed: ask now, even while paused. */
  anew() {
    this.underWay.abort();
    if (!this.isAsking) this.polling.now();
  }

  /** @param {AbortSignal} signal */
  async read(signal) {
    this.isAsking = true;
    try {
      while (!(await this.isRead(signal)));
    } finally {
      this.isAsking = false;
    }
  }

  /** Ask once; false if the filters have changed meanwhile. @param {AbortSignal} signal */
  async isRead(signal) {
    const asked = location.search;
    if (!(await isConfigured())) {
      this.say(notConfigured());
      return true;
    }
    this.underWay = new AbortController();
    const params = { ...Object.fromEntries(FILTERS.map((name) => [name, router.get(name)])), limit: MOST };
    try {
      const rows = await api("/requests.json", { params, signal: AbortSignal.any([signal, this.underWay.signal]) });
      if (asked !== location.search) return false;
      this.show(rows);
    } catch (error) {
      if (asked !== location.search) return false;
      if (!(error instanceof ApiError)) throw error;
      if (error.status || this.rows.length === 0) this.say(refused(error));
      throw error;
    }
    return true;
  }

  /** @param {Row[]} rows */
  show(rows) {
    const text = JSON.stringify(rows) + location.search;
    if (text === this.shown) return;
    this.shown = text;
    this.rows = rows;
    setText(this.parts.count, rows.length === MOST ? `the latest ${MOST}` : rows.length === 1 ? "1 request" : `${rows.length} requests`);
    this.parts.filters.hidden = false;
    if (rows.length === 0) {
      this.say(this.isFiltered() ? this.nothingFound() : nothingYet());
      return;
    }
    const focused = document.activeElement instanceof HTMLElement ? document.activeElement.dataset.row : undefined;
    fill(
      this.parts.body,
      rows.map((row) => this.lines(row)),
    );
    this.parts.table.hidden = false;
    this.parts.place.hidden = true;
    const again = [...this.parts.body.querySelectorAll("button")].find((button) => focused && button.dataset.row === focused);
    again?.focus();
  }

  /** Show a panel in place of the table. @param {HTMLElement} panel */
  say(panel) {
    this.parts.table.hidden = true;
    this.parts.place.hidden = false;
    this.rows = [];
    fill(this.parts.place, panel);
  }

  isFiltered() {
    return FILTERS.some((name) => router.get(name));
  }

  nothingFound() {
    const clear = () => {
      router.set(Object.fromEntries(FILTERS.map((name) => [name, null])));
      this.readAddress();
      this.anew();
    };
    return state(
      "empty",
      { title: "No request passes these filters", text: "Of the latest requests that are kept, none is like this." },
      { label: "Show all", onclick: clear },
    );
  }

  /** A row, and its details below it. @param {Row} row */
  lines(row) {
    const key = keyOf(row);
    const details = el(
      "tr",
      { class: "more", hidden: !this.open.has(key) },
      el(
        "td",
        { colspan: "8" },
        detail(row, (values) => this.narrow(values)),
      ),
    );
    const button = el(
      "button",
      { type: "button", class: "row-button", "aria-expanded": String(this.open.has(key)), dataset: { row: key } },
      el("span", { class: "twisty", "aria-hidden": "true" }),
      el("time", { datetime: row.timestamp }, clock(row.timestamp)),
    );
    button.addEventListener("click", () => {
      details.hidden = !details.hidden;
      button.setAttribute("aria-expanded", String(!details.hidden));
      if (details.hidden) this.open.delete(key);
      else this.open.add(key);
    });
    return [line(row, button), details];
  }

  /** @param {Record<string, string>} values */
  narrow(values) {
    router.set(values);
    this.readAddress();
    this.anew();
  }
}

/**
 * Put the elements into the page; those that change are given back.
 * @param {HTMLElement} content
 * @param {{typed: () => void, chosen: () => void, toggle: () => void}} listeners
 */
function requestsParts(content, { typed, chosen, toggle }) {
  const find = { type: "search", class: "field", placeholder: "Find in any column", "aria-label": "Find in any column" };
  const fields = {
    text: /** @type {HTMLInputElement} */ (el("input", { ...find, oninput: typed })),
    router: choice("Router", [["", "all routers"], ...routers().map((label) => [label, label])], chosen),
    status: choice("Outcome", [["", "any outcome"], ["failed"], ["2xx"], ["3xx"], ["4xx"], ["5xx"]], chosen),
  };
  const chips = el("div", { class: "chips" });
  const pause = el("button", { type: "button", class: "button", "aria-pressed": "false", onclick: toggle }, "Pause");
  const count = el("span", { class: "muted small", role: "status" });
  const filters = el("div", { class: "filters" }, Object.values(fields), chips, pause, count);
  const body = el("tbody");
  const table = el("div", { class: "card table-card", hidden: true }, el("table", { class: "requests" }, head(), body));
  const place = el("div", null, state("loading", "Asking for the latest requests"));
  fill(content, filters, table, place);
  return { fields, chips, pause, count, filters, body, table, place };
}

/** @param {string} label @param {string[][]} options each a value and, unless it is the same, its text @param {() => void} chosen */
function choice(label, options, chosen) {
  const made = options.map(([value, text]) => el("option", { value }, text ?? value));
  return /** @type {HTMLSelectElement} */ (el("select", { class: "field", "aria-label": label, onchange: chosen }, made));
}

function head() {
  const columns = ["Time", "Outcome", "Took", "Request", "Router", "Service", "Client", "Destination"];
  return el(
    "thead",
    null,
    el(
      "tr",
      null,
      columns.map((column) => el("th", { scope: "col", class: column === "Took" ? "right" : null }, column)),
    ),
  );
}

/** @param {Row} row @param {HTMLElement} button */
function line(row, button) {
  const { kind, text } = outcome(row);
  const mark = { good: "✓", warn: "!", bad: "✕" }[kind];
  return el(
    "tr",
    { class: `row row-${kind}` },
    el("td", { class: "cell-time" }, button),
    el(
      "td",
      null,
      el("span", { class: `badge badge-${kind}` }, mark, " ", text),
      row.retries ? el("span", { class: "badge" }, `↻ ${row.retries}`) : null,
    ),
    el("td", { class: "right number" }, duration(row.duration_ms)),
    el("td", { class: "cell-request" }, el("div", { class: "clamped" }, el("span", { class: "method" }, row.method), " ", el("code", null, row.path))),
    el("td", { class: "cell-router" }, row.router),
    el("td", { class: "cell-name" }, el("code", { class: "clamped" }, row.logical_name)),
    el("td", { class: "cell-name" }, el("code", { class: "clamped" }, row.concrete_name)),
    el("td", { class: "cell-name" }, el("code", null, row.destination)),
  );
}

/** @param {Row} row @param {(values: Record<string, string>) => void} narrow */
function detail(row, narrow) {
  /** @type {[string, string][]} */
  const facts = [
    ["Time", row.timestamp],
    ["Request", `${row.method} ${row.path}`],
    ["Source", row.source],
    ["Server", row.server],
    ["Router", row.router],
    ["Service", row.logical_name],
    ["Client", row.concrete_name],
    ["Destination", row.destination],
    ["Retries", String(row.retries)],
    ["Trace", row.trace_id],
    ["Error", row.error ?? ""],
  ];
  return el(
    "div",
    { class: "detail" },
    el(
      "dl",
      { class: "request-facts" },
      facts
        .filter(([, value]) => value)
        .map(([name, value]) => el("div", null, el("dt", null, name), el("dd", null, el("code", null, value)))),
    ),
    el(
      "div",
      { class: "detail-tools" },
      row.logical_name
        ? el("a", { class: "button", href: placeUrl({ router: row.router, path: row.logical_name, trial: null }) }, "How it resolves")
        : null,
      row.logical_name
        ? el("button", { type: "button", class: "button", onclick: () => narrow({ service: row.logical_name }) }, "Only this service")
        : null,
      row.concrete_name
        ? el("button", { type: "button", class: "button", onclick: () => narrow({ client: row.concrete_name }) }, "Only this client")
        : null,
      el("button", { type: "button", class: "button", onclick: () => void copy(row.trace_id) }, "Copy trace id"),
    ),
  );
}

/** @type {boolean | undefined} */
let configured;

/** Whether the gateway keeps requests at all; asked until it does, as a reload may change it. */
async function isConfigured() {
  if (!configured) {
    const config = await api("/config.json");
    configured = (config.telemetry ?? []).some((/** @type {any} */ one) => one.kind === KIND);
  }
  return configured;
}

function notConfigured() {
  const text = "This gateway keeps no requests. To see the latest here, add this to its configuration and reload it:";
  return state(
    "info",
    { title: "Requests are not kept", text },
    el(
      "div",
      { class: "how" },
      el("pre", { tabIndex: 0, role: "region", "aria-label": "Configuration" }, YAML),
      el("button", { type: "button", class: "button", onclick: () => void copy(YAML) }, "Copy"),
    ),
  );
}

function nothingYet() {
  return state("empty", { title: "No requests yet", text: "As soon as a sampled request has been answered, it stands here." });
}

/** @param {ApiError} error */
function refused({ status, message }) {
  const title =
    status === 401 || status === 403 ? "Not allowed" : status === 400 ? "This filter cannot be used" : "The requests cannot be read";
  return state("error", { title, text: message });
}

new RequestsPage(mountShell({ page: "requests", title: "Requests", subtitle: "The latest requests that were sampled, the newest first" }));
