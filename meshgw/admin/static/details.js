// What unfolds below a row: all that is known of one server, service or client.

import { SHARE_STARTS } from "./cards.js";
import { causes, facts, healthBadge, statuses, tally } from "./cells.js";
import { Chart } from "./chart.js";
import { el, fill, setText, state } from "./dom.js";
import { bytes, duration, percent, short, whole } from "./figures.js";
import { counter, gauge } from "./model.js";
import { ApiError, api, poll } from "./net.js";

/** @typedef {import("./model.js").Part} Part */
/** @typedef {{element: Element, update: (part: Part) => void}} Piece */

/** @param {string} title @param {...string} names @returns {[string, (part: Part) => string | null]} */
function counted(title, ...names) {
  return [title, (part) => (counter(part.node, ...names) ? whole(counter(part.node, ...names)) : null)];
}

/** @param {string} title @param {...string} names @returns {[string, (part: Part) => string | null]} */
function gauged(title, ...names) {
  return [title, (part) => (gauge(part.node, ...names) === null ? null : whole(gauge(part.node, ...names)))];
}

/** @type {[string, (part: Part) => string | null][]} */
const TRAFFIC = [
  ["Requests in all", (part) => whole(part.total)],
  ["Failures in all", (part) => whole(counter(part.node, "failures"))],
  ["Received", (part) => (counter(part.node, "received_bytes") ? bytes(counter(part.node, "received_bytes")) : null)],
  ["Sent", (part) => (counter(part.node, "sent_bytes") ? bytes(counter(part.node, "sent_bytes")) : null)],
];

const CONNECTIONS = [gauged("Connections now", "connections"), counted("Opened", "connects"), counted("Closed", "closes"), gauged("Streams now", "open_streams")];

/** @param {...Piece} pieces @returns {Piece} */
function together(...pieces) {
  const element = el("div", { class: "details" }, pieces.map((piece) => piece.element));
  return { element, update: (part) => pieces.forEach((piece) => piece.update(part)) };
}

/** @param {string} title @param {Piece} piece @returns {Piece} */
function panel(title, piece) {
  return { element: el("div", { class: "panel" }, el("h3", null, title), piece.element), update: piece.update };
}

/** @returns {Piece} */
function shareChart() {
  const chart = new Chart({ label: "Success rate", series: [{ name: "success", style: "line-good" }], format: percent, span: 60_000, end: 1, starts: SHARE_STARTS, height: 72 });
  const update = (/** @type {Part} */ { history }) => chart.update([history.shares()], history.time(history.length - 1));
  return panel("Success rate", { element: chart.element, update });
}

export function serverDetails() {
  const kept = facts([...TRAFFIC, ...CONNECTIONS, counted("Closed while idle", "idle"), counted("Closed for age", "lifetime")]);
  return together(shareChart(), panel("Traffic", kept), tally("Statuses", statuses, "none yet"), tally("Failures by cause", causes, "none"));
}

/** @param {() => Part[]} clients those of the router @returns {(part: Part) => Piece} */
export function serviceDetails(clients) {
  return (part) => {
    const kept = facts([
      ...TRAFFIC.slice(0, 2),
      counted("Retries in all", "retries", "total"),
      gauged("Retries left in the budget", "retries", "budget"),
      counted("Not retried, budget used up", "retries", "budget_exhausted"),
    ]);
    const address = `/delegator?router=${encodeURIComponent(part.router)}#${part.name}`;
    const link = { element: el("p", null, el("a", { href: address }, "How this name is resolved")), update: () => {} };
    return together(shareChart(), panel("Traffic", kept), ways(clients), tally("Failures by cause", causes, "none"), link);
  };
}

/** The clients that a service's requests go through. @param {() => Part[]} clients @returns {Piece} */
function ways(clients) {
  const list = el("ul", { class: "ways" });
  /** @type {Map<string, {element: HTMLElement, rate: HTMLElement, badge: ReturnType<typeof healthBadge>}>} */
  const made = new Map();
  const update = (/** @type {Part} */ service) => {
    const found = clients().flatMap((client) => {
      const through = client.through.get(service.id);
      return through ? [{ name: client.name, through }] : [];
    });
    found.sort((one, other) => other.through.total - one.through.total);
    const shown = found.slice(0, 20);
    const names = new Set(shown.map(({ name }) => name));
    for (const [name, { element }] of made) {
      if (names.has(name)) continue;
      element.remove();
      made.delete(name);
    }
    for (const { name, through } of shown) {
      let way = made.get(name);
      if (!way) {
        made.set(name, (way = makeWay(name)));
        list.append(way.element);
      }
      setText(way.rate, `${short(through.rate)}/s, ${whole(through.total)} in all`);
      way.badge.update(through.share, percent(through.share));
    }
    none.hidden = shown.length > 0;
  };
  const none = el("p", { class: "muted" }, "none in use");
  return { element: el("div", { class: "panel panel-wide" }, el("h3", null, "Clients"), none, list), update };
}

/** @param {string} name */
function makeWay(name) {
  const badge = healthBadge();
  const rate = el("span", { class: "number muted" });
  return { element: el("li", null, el("span", { class: "name" }, name), rate, badge.element), rate, badge };
}

/** The balancer names itself by a gauge that is 1. @param {Part} part @returns {string | null} */
function algorithm(part) {
  return Object.keys(part.node.loadbalancer ?? {}).find((name) => /^(p2c|aperture|heap|round_?robin|ewma)/.test(name)) ?? null;
}

export function clientDetails() {
  const balancing = facts([
    ["Balancer", algorithm],
    gauged("Endpoints known", "loadbalancer", "size"),
    gauged("Usable", "loadbalancer", "available"),
    counted("Taken out after failures", "failure_accrual", "removals"),
    counted("Taken back in", "failure_accrual", "revivals"),
    counted("Probes", "failure_accrual", "probes"),
    ["Out of use in all", (part) => (counter(part.node, "failure_accrual", "removed_for_ms") ? duration(counter(part.node, "failure_accrual", "removed_for_ms")) : null)],
  ]);
  const connecting = facts([
    ...TRAFFIC,
    ...CONNECTIONS,
    gauged("Waiting for a connection", "pool_waiters"),
    counted("Failed to connect", "service_creation", "failures"),
    counted("Sent again to another endpoint", "retries", "requeues"),
  ]);
  return together(
    shareChart(),
    panel("Balancing", balancing),
    panel("Traffic", connecting),
    addresses(),
    tally("Statuses", statuses, "none yet"),
    tally("Failures by cause", causes, "none"),
  );
}

const ADDRESSES_EVERY = 3_000;
const MOST_ADDRESSES = 100;

/** The endpoints of a client with their state, asked for as long as they are in view. @returns {Piece} */
function addresses() {
  const place = el("div", { class: "addresses" }, state("loading", "Asking for the addresses"));
  const element = el("div", { class: "panel panel-wide" }, el("h3", null, "Addresses"), place);
  let name = "";
  /** @type {ReturnType<typeof poll> | null} */
  let asking = null;
  let wasShown = false;
  const ask = async (/** @type {AbortSignal} */ signal) => {
    if (element.isConnected) wasShown = true;
    else if (wasShown) return asking?.stop();
    try {
      const all = await api("/client_state.json", { signal });
      fill(place, addressList(all[name]));
    } catch (error) {
      if (error instanceof ApiError && !signal.aborted) fill(place, el("p", { class: "muted" }, `The addresses cannot be read: ${error.message}`));
      throw error;
    }
  };
  const update = (/** @type {Part} */ part) => {
    name = part.name;
    asking ??= poll(ask, { every: ADDRESSES_EVERY });
  };
  return { element, update };
}

/** @param {any} found */
function addressList(found) {
  if (!found) return el("p", { class: "muted" }, "This client is not in use at the moment.");
  if (found.state !== "bound") return el("p", null, `Not bound: ${found.state}`);
  /** @type {any[]} */
  const endpoints = found.endpoints ?? found.addresses.map((/** @type {string} */ address) => ({ address }));
  if (!endpoints.length) return el("p", null, "The name is known, but has no address.");
  const rows = endpoints.slice(0, MOST_ADDRESSES).map((one) => el("li", null, el("span", { class: "mono name" }, one.address), statusOf(one), el("span", { class: "muted number" }, told(one))));
  const rest = endpoints.length - rows.length;
  return el("div", null, el("ul", { class: "ways" }, rows), rest > 0 ? el("p", { class: "muted" }, `and ${rest} more, in /client_state.json`) : null);
}

/** @param {any} endpoint */
function statusOf({ status, failureAccrual }) {
  const isDead = failureAccrual && failureAccrual.state !== "alive";
  if (isDead) return el("span", { class: "badge badge-bad" }, el("span", { "aria-hidden": "true" }, "■"), failureAccrual.state);
  if (status && status !== "open") return el("span", { class: "badge badge-warn" }, el("span", { "aria-hidden": "true" }, "▲"), status);
  return el("span", { class: "badge badge-good" }, el("span", { "aria-hidden": "true" }, "●"), status ?? "known");
}

/** @param {any} endpoint */
function told({ weight, connections, load }) {
  const parts = [];
  if (weight !== undefined && weight !== 1) parts.push(`weight ${weight}`);
  if (load !== undefined) parts.push(`${load} in flight`);
  if (connections) parts.push(`${connections.open} open`);
  return parts.join(", ");
}
