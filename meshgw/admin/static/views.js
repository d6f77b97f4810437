// The views of the figures: all routers, one router, and services with the clients they go through.

import { figures, retryBar, RouterCard, successChart, totals, trafficChart, unused } from "./cards.js";
import { endpointsColumn, healthBadge, latencyColumns, latencyText, nameColumn, numberColumn, rateColumn, routerColumn, successColumn } from "./cells.js";
import { clientDetails, serverDetails, serviceDetails } from "./details.js";
import { el, fill, setText, state } from "./dom.js";
import { bytes, duration, milliseconds, percent, short, whole } from "./figures.js";
import { issueList } from "./issues.js";
import { allowedRetries, gauge } from "./model.js";
import { router as address } from "./shell.js";
import { Table } from "./table.js";

/** @typedef {import("./model.js").Model} Model */
/** @typedef {import("./model.js").Part} Part */
/** @typedef {import("./model.js").RouterModel} RouterModel */
/** @typedef {"server" | "service" | "client"} Kind */
/** @typedef {{model: Model, settings: Map<string, any>, uptime: number | null, issues: import("./issues.js").Rule[]}} Known what was read */
/** @typedef {{element: Element, update: (known: Known) => void}} View */

const KINDS = { service: "Services", client: "Clients", server: "Servers" };
const NOTHING = {
  service: { title: "No services in use", text: "A service appears with its first request, and goes some time after its last." },
  client: { title: "No clients in use", text: "A client appears when a name is first bound to it, and goes some time after its last request." },
  server: { title: "No servers", text: "Servers appear as soon as they listen." },
};

/**
 * @param {Kind} kind
 * @param {{isAcross?: boolean, isFull?: boolean, label?: string, clients: (router: string) => Part[]}} options
 *   `isAcross` for several routers, `isFull` for all percentiles
 */
function partTable(kind, { isAcross = false, isFull = false, label = KINDS[kind], clients }) {
  const pending = numberColumn("pending", "In flight", (part) => part.pending);
  const connections = numberColumn("connections", "Connections", (part) => part.connections);
  const own = {
    server: [connections, pending],
    service: [numberColumn("retries", "Retries/s", (part) => part.retries), pending],
    client: [endpointsColumn(), connections, numberColumn("retries", "Requeues/s", (part) => part.retries)],
  };
  const details = {
    server: serverDetails,
    service: (/** @type {Part} */ part) => serviceDetails(() => clients(part.router))(part),
    client: clientDetails,
  };
  const title = { server: "Address", service: "Service", client: "Client" }[kind];
  const parameter = isAcross ? "q" : `${kind}s`;
  return new Table({
    label,
    columns: [
      nameColumn(title),
      ...(isAcross ? [routerColumn()] : []),
      rateColumn(),
      successColumn(),
      ...own[kind],
      ...latencyColumns(isFull ? ["p50", "p95", "p99", "p9990", "max"] : ["p50", "p95", "p99"]),
    ],
    key: (part) => part.key,
    search: (part) => `${part.name} ${part.router}`,
    sort: { by: "rate", isDown: true },
    details: details[kind],
    empty: () => state("empty", NOTHING[kind]),
    filter: address.get(parameter) ?? "",
    onFilter: (text) => address.set({ [parameter]: text }, { replace: true }),
  });
}

const FIRST_MINUTE = 60_000;

/** A line that says of what time latencies are, and when the first ones come. */
function latencyNote() {
  const element = el("p", { class: "muted small", role: "note" });
  const update = (/** @type {Part[] | RouterModel[]} */ parts, /** @type {number | null} */ uptime) => {
    const isCollecting = parts.length > 0 && parts.every((part) => part.latency === null);
    if (!isCollecting) return setText(element, "Latencies are those of the last full minute.");
    const left = uptime !== null && uptime < FIRST_MINUTE ? ` in ${Math.ceil((FIRST_MINUTE - uptime) / 1000)} s` : " within a minute";
    setText(element, `Latencies (…) are being collected; the first ones come${left}.`);
  };
  return { element, update };
}

/** All routers. @returns {View} */
export function overview() {
  const all = totals();
  const issues = issueList();
  const grid = el("div", { class: "cards" });
  /** @type {Map<string, RouterCard>} */
  const cards = new Map();
  const traffic = trafficList();
  const note = latencyNote();
  const none = state("empty", { title: "No routers", text: "The configuration has none that are running." });
  const element = el("div", { class: "content" }, issues.element, all.element, el("section", { class: "section", "aria-label": "Routers" }, grid), traffic.element, note.element);
  const update = (/** @type {Known} */ known) => {
    const routers = [...known.model.routers.values()].filter((router) => router.at !== null);
    all.update(routers);
    issues.update(known.issues);
    for (const [label, card] of cards) {
      if (known.model.routers.has(label)) continue;
      card.element.remove();
      cards.delete(label);
    }
    for (const router of routers) {
      let card = cards.get(router.label);
      if (!card) {
        cards.set(router.label, (card = new RouterCard(router.label)));
        grid.append(card.element);
      }
      const settings = known.settings.get(router.label);
      card.update(router, settings, allowedRetries(settings));
    }
    if (!routers.length) fill(grid, none);
    else none.remove();
    traffic.update(known);
    note.update(routers.filter(({ isUsed }) => isUsed), known.uptime);
  };
  return { element, update };
}

/** One list of services, clients or servers of all routers, by the reader's choice. @returns {View} */
function trafficList() {
  let kind = /** @type {Kind} */ (Object.keys(KINDS).find((one) => `${one}s` === address.get("list")) ?? "service");
  /** @type {Known | null} */
  let latest = null;
  /** @type {Partial<Record<Kind, Table<Part>>>} */
  const tables = {};
  const place = el("div", null);
  const tools = el("div", { class: "tools" });
  const clients = (/** @type {string} */ router) => [...(latest?.model.routers.get(router)?.parts.client.values() ?? [])];
  const show = () => {
    const table = (tables[kind] ??= partTable(kind, { isAcross: true, clients }));
    if (place.firstElementChild === table.element) return table;
    fill(place, table.element);
    fill(tools, table.tools);
    return table;
  };
  const choose = (/** @type {Kind} */ chosen) => {
    kind = chosen;
    address.set({ list: kind === "service" ? null : `${kind}s`, q: null }, { replace: true });
    if (latest) show().update(latest.model.all(kind));
  };
  const tabs = choice("What to list", /** @type {[Kind, string][]} */ (Object.entries(KINDS)), kind, choose);
  const element = el("section", { class: "section", "aria-label": "Traffic" }, el("div", { class: "section-head" }, tabs, tools), place);
  const update = (/** @type {Known} */ known) => {
    latest = known;
    show().update(known.model.all(kind));
  };
  return { element, update };
}

/**
 * A choice of few things, as radio buttons that look like one control.
 * @template {string} T @param {string} label @param {[T, string][]} options @param {T} chosen @param {(value: T) => void} onChoice
 */
export function choice(label, options, chosen, onChoice) {
  const name = `choice-${label.toLowerCase().replaceAll(" ", "-")}`;
  const items = options.map(([value, text]) => {
    const input = el("input", { type: "radio", name, value, checked: value === chosen, onchange: () => onChoice(value) });
    return el("label", { class: "choice-item" }, input, el("span", null, text));
  });
  return el("div", { class: "choice", role: "radiogroup", "aria-label": label }, items);
}

/** @param {Kind} kind @param {(router: string) => Part[]} clients */
function partSection(kind, clients) {
  const table = partTable(kind, { isFull: kind !== "client", clients });
  const head = el("div", { class: "section-head" }, el("h2", null, KINDS[kind]), table.tools);
  return { element: el("section", { class: "section", "aria-label": KINDS[kind] }, head, table.element), update: (/** @type {Part[]} */ parts) => table.update(parts) };
}

/** One router. @param {string} label @returns {View} */
export function oneRouter(label) {
  const summary = routerSummary();
  /** @type {Known | null} */
  let latest = null;
  const clients = () => [...(latest?.model.routers.get(label)?.parts.client.values() ?? [])];
  const sections = /** @type {const} */ (["server", "service", "client"]).map((kind) => ({ kind, section: partSection(kind, clients) }));
  const note = latencyNote();
  const place = el("div", { class: "content" }, summary.element, sections.map(({ section }) => section.element), note.element);
  const update = (/** @type {Known} */ known) => {
    latest = known;
    const router = known.model.routers.get(label);
    if (!router || router.at === null) return;
    summary.update(router, known.settings.get(label));
    for (const { kind, section } of sections) section.update([...router.parts[kind].values()]);
    note.update(router.isUsed ? [router] : [], known.uptime);
  };
  return { element: place, update };
}

function routerSummary() {
  const badge = healthBadge();
  const shown = figures(
    /** @type {{title: string, hint?: string, text: (router: RouterModel) => string}[]} */ ([
      { title: "Requests/s", hint: "Mean of the last 10 seconds", text: (router) => short(router.rate) },
      { title: "Success", hint: "Share of the last 30 seconds", text: (router) => percent(router.share) },
      { title: "Failures/s", text: (router) => short(router.history.rate("failures", 10_000)) },
      { title: "In flight", text: (router) => whole(router.sumOf("server", "pending")) },
      { title: "Connections in", text: (router) => whole(router.sumOf("server", "connections")) },
      { title: "Connections out", text: (router) => whole(router.sumOf("client", "connections")) },
      { title: "p50", text: (router) => latencyText(router.latency, "p50") },
      { title: "p99", text: (router) => latencyText(router.latency, "p99") },
    ]),
  );
  const charts = [trafficChart(140), successChart(140)];
  const retries = retryBar();
  const budget = el("div", { class: "budget" }, el("span", null, "Retries"), retries.element);
  const live = el("div", { class: "card" }, el("div", { class: "charts" }, charts.map(({ element }) => element)), budget);
  const rest = el("div", { hidden: true });
  document.getElementById("page-tools")?.replaceChildren(badge.element);
  const element = el("section", { class: "section", "aria-label": "Summary" }, el("div", { class: "card card-figures" }, shown.element), live, rest);
  const update = (/** @type {RouterModel} */ router, /** @type {any} */ settings) => {
    badge.update(router.share);
    shown.update(router);
    live.hidden = !router.isUsed;
    rest.hidden = router.isUsed;
    if (!router.isUsed) fill(rest, unused(router, settings));
    for (const chart of charts) chart.update(router);
    retries.update(router, allowedRetries(settings));
  };
  return { element, update };
}

/** Services of all routers with the clients they go through. @returns {View} */
export function services() {
  /** @type {Known | null} */
  let latest = null;
  const clients = (/** @type {string} */ router) => [...(latest?.model.routers.get(router)?.parts.client.values() ?? [])];
  const table = partTable("service", { isAcross: true, isFull: true, clients });
  const note = latencyNote();
  const element = el("section", { class: "section", "aria-label": "Services" }, table.tools, table.element, note.element);
  const update = (/** @type {Known} */ known) => {
    latest = known;
    table.update(known.model.all("service"));
    note.update(known.model.all("service"), known.uptime);
  };
  return { element, update };
}

/** What is told of the process. @param {any} info `/admin/server_info` @param {Record<string, any>} jvm */
export function processText(info, jvm) {
  const [uptime, threads, collecting] = [gauge(jvm, "uptime") ?? info?.uptime ?? null, gauge(jvm, "thread", "count"), gauge(jvm, "gc", "msec")];
  const parts = [
    info ? `${info.name} ${info.version}` : null,
    uptime === null ? null : `up ${duration(uptime)}`,
    gauge(jvm, "mem", "current", "used") === null ? null : `${bytes(gauge(jvm, "mem", "current", "used"))} of memory`,
    gauge(jvm, "fd_count") === null ? null : `${whole(gauge(jvm, "fd_count"))} open files`,
    threads === null ? null : `${whole(threads)} ${threads === 1 ? "thread" : "threads"}`,
    collecting === null ? null : `${milliseconds(collecting)} in garbage collection`,
  ];
  return parts.filter((part) => part !== null).join(" · ");
}
