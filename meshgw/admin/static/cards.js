// The overview's cards: the totals of the gateway, and one card for each router.

import { healthBadge, latencyText } from "./cells.js";
import { Bar, Chart } from "./chart.js";
import { el, fill, setText, state } from "./dom.js";
import { percent, short, whole } from "./figures.js";
import { SHARE_WINDOW } from "./model.js";

/** @typedef {import("./model.js").RouterModel} RouterModel */

export const CHART_SPAN = 180_000;
export const SHARE_STARTS = [0.99, 0.95, 0.9, 0.5]; // a fall from 100 % to 99 % must be seen

/**
 * Figures side by side, each with its name.
 * @template T
 * @param {{title: string, hint?: string, text: (value: T) => string}[]} wanted
 */
export function figures(wanted) {
  const items = wanted.map(({ title, hint, text }) => {
    const value = el("dd", { class: "number" });
    return { element: el("div", { class: "figure", title: hint }, el("dt", null, title), value), value, text };
  });
  const update = (/** @type {T} */ from) => items.forEach(({ value, text }) => setText(value, text(from)));
  return { element: el("dl", { class: "figures" }, items.map(({ element }) => element)), update };
}

/** @param {RouterModel[]} routers @param {(router: RouterModel) => number} value */
function sum(routers, value) {
  return routers.reduce((total, router) => total + value(router), 0);
}

/** The share of successes of several routers together. @param {RouterModel[]} routers */
function shareOfAll(routers) {
  const counts = routers.map(({ history }) => history.over(SHARE_WINDOW));
  const [success, failures] = [counts.reduce((total, one) => total + (one?.success ?? 0), 0), counts.reduce((total, one) => total + (one?.failures ?? 0), 0)];
  return success + failures > 0 ? success / (success + failures) : null;
}

/** The totals of the whole gateway. */
export function totals() {
  const made = figures(
    /** @type {{title: string, hint?: string, text: (routers: RouterModel[]) => string}[]} */ ([
      { title: "Requests/s", hint: "Mean of the last 10 seconds", text: (routers) => short(sum(routers, (one) => one.rate ?? 0)) },
      { title: "Success", hint: "Share of the last 30 seconds", text: (routers) => percent(shareOfAll(routers)) },
      { title: "In flight", hint: "Requests that are being answered now", text: (routers) => whole(sum(routers, (one) => one.sumOf("server", "pending"))) },
      { title: "Connections in", text: (routers) => whole(sum(routers, (one) => one.sumOf("server", "connections"))) },
      { title: "Connections out", text: (routers) => whole(sum(routers, (one) => one.sumOf("client", "connections"))) },
      { title: "Retries/s", hint: "By services and clients together", text: (routers) => short(sum(routers, (one) => one.history.rate("retries", 10_000) ?? 0)) },
    ]),
  );
  return { element: el("section", { class: "card card-figures", "aria-label": "Totals" }, made.element), update: made.update };
}

/** A chart of requests and failures per second. @param {number} height */
export function trafficChart(height) {
  const series = /** @type {import("./chart.js").Series[]} */ ([
    { name: "requests/s", style: "line-1" },
    { name: "failures/s", style: "line-2" },
  ]);
  const chart = new Chart({ label: "Requests and failures per second", series, format: short, span: CHART_SPAN, height });
  return { element: chart.element, update: (/** @type {RouterModel} */ { history }) => chart.update([history.rates("requests"), history.rates("failures")], history.time(history.length - 1)) };
}

/** A chart of the share of successes. @param {number} height */
export function successChart(height) {
  const chart = new Chart({ label: "Success rate", series: [{ name: "success", style: "line-good" }], format: percent, span: CHART_SPAN, end: 1, starts: SHARE_STARTS, height });
  return { element: chart.element, update: (/** @type {RouterModel} */ { history }) => chart.update([history.shares()], history.time(history.length - 1)) };
}

/** Retries as a share of requests, against what the budget allows. */
export function retryBar() {
  const bar = new Bar("Retries");
  const update = (/** @type {RouterModel} */ router, /** @type {number | null} */ allowed) => {
    const used = router.retryShare;
    if (allowed === null || allowed <= 0) bar.update(null, used === null ? "none" : `${percent(used)} of requests`, "idle");
    else bar.update((used ?? 0) / allowed, `${percent(used ?? 0)} of requests, ${percent(allowed)} allowed`, (used ?? 0) >= allowed * 0.8 ? "bad" : (used ?? 0) > allowed * 0.4 ? "warn" : "good");
  };
  return { element: bar.element, update };
}

/**
 * How to send a first request through a router.
 * @param {string} address where its first server listens, `ip:port`
 * @param {any} settings the router in `/config.json`, if it is known
 */
export function firstRequest(address, settings) {
  const [, ip, port] = /^(.*):(\d+)$/.exec(address) ?? ["", "127.0.0.1", "4140"];
  const isAny = ip === "0.0.0.0" || ip === "::";
  const host = isAny ? location.hostname : ip.includes(":") ? `[${ip}]` : ip;
  const isTls = Boolean(settings?.servers?.some((/** @type {any} */ server) => Number(server.port) === Number(port) && server.tls));
  const options = settings?.protocol === "h2" && !isTls ? "--http2-prior-knowledge " : isTls ? "--insecure " : "";
  return `curl ${options}-H 'Host: web' ${isTls ? "https" : "http"}://${host}:${port}/`;
}

/** What is shown of a router that nobody has used yet. @param {RouterModel} router @param {any} settings */
export function unused(router, settings) {
  const server = [...router.parts.server.values()][0];
  if (!server) return state("empty", { title: "No server is listening", text: "This router has no server yet, or it is just starting." });
  const text = "Send one; the name in Host is looked up in the router's dtab:";
  return state("empty", { title: "No requests yet", text }, el("pre", { tabIndex: 0 }, firstRequest(server.name, settings)));
}

/** The card of a router. @param {string} label */
export class RouterCard {
  /** @param {string} label */
  constructor(label) {
    this.badge = healthBadge();
    this.protocol = el("span", { class: "muted small" });
    this.figures = figures(
      /** @type {{title: string, hint?: string, text: (router: RouterModel) => string}[]} */ ([
        { title: "Success", hint: "Share of the last 30 seconds", text: (router) => percent(router.share) },
        { title: "p50", hint: "Half of the answers came within this time, in the last full minute", text: (router) => latencyText(router.latency, "p50") },
        { title: "p95", hint: "95 of 100 answers", text: (router) => latencyText(router.latency, "p95") },
        { title: "p99", hint: "99 of 100 answers", text: (router) => latencyText(router.latency, "p99") },
      ]),
    );
    this.chart = trafficChart(84);
    this.retries = retryBar();
    this.load = el("span", { class: "number" });
    const foot = el("dl", { class: "card-foot" }, el("div", null, el("dt", null, "Retries"), el("dd", null, this.retries.element)), el("div", null, el("dt", null, "Load"), el("dd", null, this.load)));
    this.live = el("div", { class: "card-live" }, this.figures.element, this.chart.element, foot);
    this.rest = el("div", { hidden: true });
    const link = el("a", { href: `/?${new URLSearchParams({ router: label })}` }, label);
    const head = el("div", { class: "card-head" }, el("h2", null, link), this.protocol, this.badge.element);
    this.element = el("article", { class: "card router-card" }, head, this.live, this.rest);
  }

  /** @param {RouterModel} router @param {any} settings @param {number | null} allowed */
  update(router, settings, allowed) {
    setText(this.protocol, settings?.protocol ?? "");
    this.badge.update(router.share);
    this.live.hidden = !router.isUsed;
    this.rest.hidden = router.isUsed;
    if (!router.isUsed) {
      if (this.rest.dataset.for !== String(Boolean(settings))) fill(this.rest, unused(router, settings));
      this.rest.dataset.for = String(Boolean(settings));
      return;
    }
    this.figures.update(router);
    this.chart.update(router);
    this.retries.update(router, allowed);
    const [flight, incoming, outgoing] = [router.sumOf("server", "pending"), router.sumOf("server", "connections"), router.sumOf("client", "connections")];
    setText(this.load, `${whole(flight)} in flight, ${whole(incoming)} in, ${whole(outgoing)} out`);
  }
}
