// Cells of tables and facts of panels: how a figure of the model is shown.

import { Bar, Spark } from "./chart.js";
import { el, fill, setText } from "./dom.js";
import { health, HEALTH_MARKS, HEALTH_WORDS, milliseconds, NONE, percent, short } from "./figures.js";

/** @typedef {import("./model.js").Part} Part */
/** @typedef {import("./table.js").Column<Part>} PartColumn */

export const SPARK_SPAN = 60_000;

/** A badge that says by colour, shape and text how well it goes. */
export function healthBadge() {
  const mark = el("span", { "aria-hidden": "true" });
  const text = el("span", null);
  const element = el("span", { class: "badge" }, mark, text);
  /** @param {number | null} share @param {string} [said] instead of the word */
  const update = (share, said) => {
    const kind = health(share);
    element.className = `badge badge-${kind}`;
    element.title = HEALTH_WORDS[kind];
    setText(mark, HEALTH_MARKS[kind]);
    setText(text, said ?? HEALTH_WORDS[kind]);
  };
  return { element, update };
}

/** @param {string} title @returns {PartColumn} */
export function nameColumn(title) {
  const cell = () => {
    const element = el("span", { class: "name" });
    const update = (/** @type {Part} */ part) => {
      setText(element, part.name);
      if (element.title !== part.name) element.title = part.name; // long ones are cut off
    };
    return { element, update };
  };
  return { id: "name", title, value: (part) => part.name, cell };
}

/** @returns {PartColumn} */
export function routerColumn() {
  return { id: "router", title: "Router", value: (part) => part.router, text: (part) => part.router };
}

/** Requests per second with the shape of the last minute. @returns {PartColumn} */
export function rateColumn() {
  const cell = () => {
    const spark = new Spark();
    const text = el("span", { class: "number" });
    const update = (/** @type {Part} */ part) => {
      setText(text, short(part.rate));
      const { history } = part;
      if (history.length) spark.update(history.rates("requests"), history.time(history.length - 1), SPARK_SPAN);
    };
    return { element: el("span", { class: "rate" }, spark.element, text), update };
  };
  return { id: "rate", title: "Requests/s", hint: "Mean of the last 10 seconds", value: (part) => part.rate, cell, isNumber: true };
}

/** @returns {PartColumn} */
export function successColumn() {
  const cell = () => {
    const badge = healthBadge();
    return { element: badge.element, update: (/** @type {Part} */ part) => badge.update(part.share, percent(part.share)) };
  };
  return { id: "success", title: "Success", hint: "Share of the last 30 seconds", value: (part) => part.share, cell, isNumber: true };
}

/** @param {string} id @param {string} title @param {(part: Part) => number | null} value @param {string} [hint] @returns {PartColumn} */
export function numberColumn(id, title, value, hint) {
  return { id, title, hint, value, text: (part) => short(value(part)), isNumber: true };
}

/** @typedef {"p50" | "p95" | "p99" | "p9990" | "max"} Percentile */

const PERCENTILE_TITLES = { p50: "p50", p95: "p95", p99: "p99", p9990: "p99.9", max: "max" };
const LATENCY_HINT = "Latency within the last full minute";

/** @param {Percentile[]} names @returns {PartColumn[]} */
export function latencyColumns(names) {
  return names.map((name) => ({
    id: name,
    title: PERCENTILE_TITLES[name],
    hint: LATENCY_HINT,
    value: (part) => part.latency?.[name] ?? null,
    text: (part) => latencyText(part.latency, name),
    isNumber: true,
  }));
}

/** @param {import("./model.js").Latency | null} latency @param {Percentile} name */
export function latencyText(latency, name) {
  return latency === null ? "…" : milliseconds(latency[name]);
}

/** Endpoints that can be used, of those there are. @returns {PartColumn} */
export function endpointsColumn() {
  const value = (/** @type {Part} */ part) => endpoints(part)?.available ?? null;
  const cell = () => {
    const bar = new Bar("Endpoints that can be used");
    return { element: bar.element, update: (/** @type {Part} */ part) => updateEndpoints(bar, part) };
  };
  return { id: "endpoints", title: "Endpoints", hint: "Usable, of those known", value, cell, isNumber: true };
}

/** @param {Part} part */
export function endpoints(part) {
  const balancer = part.node.loadbalancer;
  const size = balancer?.size?.gauge;
  return size === undefined ? null : { size, available: balancer.available?.gauge ?? size };
}

/** @param {Bar} bar @param {Part} part */
export function updateEndpoints(bar, part) {
  const found = endpoints(part);
  if (!found || !found.size) bar.update(null, found ? "none" : NONE, found ? "bad" : "idle");
  else bar.update(found.available / found.size, `${found.available} / ${found.size}`, kindOf(found));
}

/** @param {{available: number, size: number}} found */
function kindOf({ available, size }) {
  if (available === size) return "good";
  return available > 0 ? "warn" : "bad";
}

/**
 * Facts as a list of definitions whose values change; those without a value are left out.
 * @param {[string, (part: Part) => string | null][]} wanted
 */
export function facts(wanted) {
  const rows = wanted.map(([title, value]) => {
    const text = el("dd", { class: "number" });
    return { element: el("div", null, el("dt", null, title), text), text, value };
  });
  const update = (/** @type {Part} */ part) => {
    for (const { element, text, value } of rows) {
      const said = value(part);
      element.hidden = said === null;
      setText(text, said ?? "");
    }
  };
  return { element: el("dl", { class: "facts" }, rows.map(({ element }) => element)), update };
}

/**
 * Counts by name, the greatest first: statuses, or causes of failures.
 * @param {string} title @param {(part: Part) => [string, number][]} counts @param {string} none
 */
export function tally(title, counts, none) {
  const list = el("ul", { class: "tally" });
  let shown = "";
  const update = (/** @type {Part} */ part) => {
    const found = counts(part).filter(([, count]) => count > 0).sort((one, other) => other[1] - one[1]).slice(0, 12);
    const signature = JSON.stringify(found);
    if (signature === shown) return;
    shown = signature;
    fill(list, found.map(([name, count]) => el("li", null, el("span", { class: "mono" }, name), el("span", { class: "number" }, short(count)))));
    if (!found.length) fill(list, el("li", { class: "muted" }, none));
  };
  return { element: el("div", { class: "panel" }, el("h3", null, title), list), update };
}

/** @param {Part} part @returns {[string, number][]} */
export function statuses(part) {
  return Object.entries(part.node.status ?? {}).flatMap(([code, node]) => (/^\d{3}$|^error$/.test(code) ? [[code, node.counter ?? 0]] : []));
}

/** The causes of failures: the names below `failures`, joined where one leads to another. @param {Part} part @returns {[string, number][]} */
export function causes(part) {
  /** @type {[string, number][]} */
  const found = [];
  const walk = (/** @type {any} */ node, /** @type {string[]} */ names) => {
    for (const [name, below] of Object.entries(node)) {
      if (below === null || typeof below !== "object") continue;
      const before = found.length;
      walk(below, [...names, name]);
      if (found.length === before && "counter" in below) found.push([[...names, name].map(shortName).join(" › "), below.counter]); // the last of a chain
    }
  };
  walk(part.node.failures ?? {}, []);
  return found;
}

/** The class without its package. @param {string} name */
function shortName(name) {
  return name.slice(name.lastIndexOf(".") + 1);
}
