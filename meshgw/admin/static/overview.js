// The pages of figures: `/`, `/?router=<label>` and `/services`. They are one program, so that going between them keeps what was read.

import { el, fill, setText, state } from "./dom.js";
import { entries } from "./dtab.js";
import { health, HEALTH_MARKS, HEALTH_WORDS } from "./figures.js";
import { Model } from "./model.js";
import { ApiError, api, mountShell, poll, revealCurrent, router as address, routers, showFreshness } from "./shell.js";
import { oneRouter, overview, processText, services } from "./views.js";

const EVERY = 1_000;
const REST_EVERY = 15_000;
const TREE = "/admin/metrics.json";

/** @type {import("./views.js").Known} */
const known = { model: new Model(routers()), settings: new Map(), uptime: null, issues: [] };
/** @type {any} */
let info = null;
/** @type {HTMLElement} */
let place;
/** @type {import("./views.js").View | null} */
let view = null;
/** @type {string | null} */
let label = null;

/** Build the view that the address asks for. */
function show() {
  const isServices = location.pathname === "/services";
  label = isServices ? null : address.get("router");
  const title = label ?? (isServices ? "Services" : "Overview");
  document.title = `${title} · meshgw`;
  place = mountShell({ page: isServices ? "services" : "overview", title, subtitle: " " });
  mark();
  view = null;
  fill(place, state("loading", "Reading the figures"));
}

/** Mark the page in the navigation. */
function mark() {
  for (const link of document.querySelectorAll(".nav a")) {
    const there = new URL(/** @type {HTMLAnchorElement} */ (link).href);
    const isHere = there.pathname === location.pathname && there.searchParams.get("router") === label;
    if (isHere) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  revealCurrent();
}

function isOverview() {
  return label === null && location.pathname === "/";
}

function build() {
  if (label !== null) return oneRouter(label);
  return location.pathname === "/services" ? services() : overview();
}

/** @param {AbortSignal} signal */
async function read(signal) {
  const asked = label;
  const tree = await (asked === null ? api(TREE, { params: { tree: true }, signal }) : readRouter(asked, signal));
  const now = performance.now();
  if (asked === null) known.model.take(now, tree);
  else if (tree) known.model.takeRouter(now, asked, tree);
  if (asked !== null && !tree) return void (asked === label && showUnknown(asked));
  known.uptime = known.model.process.uptime?.gauge ?? uptimeNow();
  if (asked === label) display();
}

/** @param {string} asked @param {AbortSignal} signal */
async function readRouter(asked, signal) {
  try {
    return await api(TREE, { params: { tree: true, q: `rt/${asked}` }, signal });
  } catch (error) {
    if (error instanceof ApiError && error.status === 404 && error.message.startsWith("No such subtree")) return null;
    throw error;
  }
}

function display() {
  if (!view) {
    view = build();
    fill(place, view.element);
  }
  view.update(known);
  showProcess();
  markHealth();
}

const OLD = 15_000;

/** Mark the routers in the navigation by how they do, those that were read of late. */
function markHealth() {
  for (const link of document.querySelectorAll("[data-router]")) {
    const router = known.model.routers.get(/** @type {HTMLElement} */ (link).dataset.router ?? "");
    const isKnown = router && router.at !== null && performance.now() - router.at < OLD;
    const kind = isKnown ? health(router.share) : "idle";
    let badge = link.querySelector(".nav-health");
    if (!badge) link.append((badge = el("span", null)));
    badge.className = `nav-health nav-${kind}`;
    /** @type {HTMLElement} */ (badge).title = HEALTH_WORDS[kind];
    setText(badge, isKnown ? HEALTH_MARKS[kind] : "");
  }
}

/** @param {string} asked */
function showUnknown(asked) {
  view = null;
  const text = routers().includes(asked) ? "It has no figures yet; it may be just starting." : "The configuration has no router of this name.";
  fill(place, state("empty", { title: `Nothing is known of the router “${asked}”`, text }, { label: "All routers", href: "/" }));
}

let readInfoAt = 0;

function uptimeNow() {
  return info ? info.uptime + (performance.now() - readInfoAt) : null;
}

function showProcess() {
  const subtitle = document.querySelector(".subtitle");
  if (!subtitle) return;
  const settings = label === null ? null : known.settings.get(label);
  if (label === null) setText(subtitle, processText(info, known.model.process));
  else if (settings) tellRouter(subtitle, label, settings);
}

/** What a router is: its dtab by its length, for the playground shows it entry by entry. @param {Element} place @param {string} name @param {any} settings */
function tellRouter(place, name, settings) {
  const [servers, dentries] = [settings.servers?.length ?? 1, entries(settings.dtab ?? "").length];
  const text = `${settings.protocol} · ${counted(servers, "server", "servers")} · `;
  const dtab = counted(dentries, "dtab entry", "dtab entries");
  if (place.textContent !== text + dtab) fill(place, text, el("a", { href: `/delegator?${new URLSearchParams({ router: name })}` }, dtab));
}

/** @param {number} count @param {string} one @param {string} many */
function counted(count, one, many) {
  return `${count} ${count === 1 ? one : many}`;
}

/** What changes rarely: the configuration, the process, and for the overview what needs a look. It may be closed to this reader; the page does without. */
async function readRest(/** @type {AbortSignal} */ signal) {
  const paths = ["/config.json", "/admin/server_info", ...(isOverview() ? ["/admin/lint.json"] : [])];
  const [config, about, lint] = await Promise.allSettled(paths.map((path) => api(path, { signal })));
  if (config.status === "fulfilled") {
    known.settings = new Map((config.value.routers ?? []).map((/** @type {any} */ one) => [one.label ?? one.protocol, one]));
    known.model.serve(known.settings.keys());
  }
  if (about.status === "fulfilled") [info, readInfoAt] = [about.value, performance.now()];
  if (lint?.status === "fulfilled") known.issues = lint.value.lint_results.failed_rules;
}

/** @param {import("./net.js").Freshness} freshness */
function tell(freshness) {
  showFreshness(freshness);
  const { error } = freshness;
  if (!error || view) return;
  fill(place, state("error", explained(error), { label: "Try again", onclick: () => polling.now() }));
}

/** @param {ApiError} error */
function explained(error) {
  if (error.status === 401) {
    return {
      title: "A token is required",
      text: "This gateway asks who reads its figures (admin.authentication). Load the page again, and give the reader's or operator's token as the password, with any user name.",
    };
  }
  if (error.status === 403) return { title: "These figures may not be read from here", text: error.message };
  if (error.status === 404) return { title: "The figures are switched off", text: "admin.security does not let /admin/metrics.json be served." };
  return { title: "No answer", text: `${error.message}. The page goes on trying.` };
}

/** Go between the pages of figures without loading them anew. @param {MouseEvent} event */
function follow(event) {
  const link = event.target instanceof Element ? event.target.closest("a") : null;
  if (!link || event.defaultPrevented || event.button !== 0 || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  const there = new URL(link.href);
  if (there.origin !== location.origin || !["/", "/services"].includes(there.pathname) || there.hash) return;
  event.preventDefault();
  history.pushState(null, "", there);
  visit();
}

function visit() {
  show();
  polling.now();
  if (isOverview()) rest.now();
  scrollTo(0, 0);
}

show();
const rest = poll(readRest, { every: REST_EVERY });
const polling = poll(read, { every: EVERY, onFreshness: (freshness) => tell(freshness) });
document.addEventListener("click", follow);
address.onChange(visit);
addEventListener("pagehide", () => [rest, polling].forEach((one) => one.pause()));
addEventListener("pageshow", () => [rest, polling].forEach((one) => one.resume()));
