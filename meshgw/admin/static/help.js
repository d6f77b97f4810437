// The help page: what the pages show, what the figures mean, the keys, and where the same is read by programs.

import { el, fill, state } from "./dom.js";
import { GOOD_FROM, HEALTH_MARKS, HEALTH_WORDS, percent, WARN_FROM } from "./figures.js";
import { keyList } from "./keys.js";
import { api, mountShell } from "./shell.js";

/** @param {string} title @param {...import("./dom.js").Child} children */
function section(title, ...children) {
  return el("section", { class: "card section" }, el("h2", null, title), children);
}

/** @param {[import("./dom.js").Child, import("./dom.js").Child][]} rows */
function definitions(rows) {
  return el("dl", { class: "definitions" }, rows.map(([term, meaning]) => el("div", null, el("dt", null, term), el("dd", null, meaning))));
}

/** @param {string} href @param {string} text */
function link(href, text) {
  return el("a", { href }, text);
}

function pages() {
  return definitions([
    [link("/", "Overview"), "All routers at a glance, with their services, clients and servers. A router's name leads to all that is known of it."],
    [link("/services", "Services"), "The names that requests ask for. Unfold one to see which clients its requests go through."],
    [link("/delegator", "Dtab"), "How a name is resolved, step by step, with the router's dtab or with one that you try out. Nothing is saved."],
    [link("/requests", "Requests"), "The last requests one by one, where the telemeter io.l5d.recentRequests is configured."],
    [link("/logging", "Logging"), "The loggers and their levels, which can be changed while the gateway runs."],
  ]);
}

/** @param {keyof typeof HEALTH_WORDS} kind */
function badge(kind) {
  return el("span", { class: `badge badge-${kind}` }, el("span", { "aria-hidden": "true" }, HEALTH_MARKS[kind]), HEALTH_WORDS[kind]);
}

function words() {
  return definitions([
    ["Server", "An address where a router listens, and the requests that came in there."],
    ["Service", "A logical name such as /svc/web. Its figures are what callers got, after retries."],
    ["Client", "A concrete name that requests were sent to. Its figures count every attempt, so that failures show that a retry has hidden from callers."],
    ["Requests/s", "The mean of the last 10 seconds. Charts show each reading."],
    ["Success", "Successes among the answers of the last 30 seconds. What is a success is told by the service's response classifier: by default all but 5xx."],
    [badge("good"), `At least ${percent(GOOD_FROM)} of the answers are successes.`],
    [badge("warn"), `At least ${percent(WARN_FROM)}.`],
    [badge("bad"), "Fewer."],
    [badge("idle"), "Nothing was answered within the last 30 seconds."],
    ["p50, p95, p99", "Half of the answers came within the p50, 95 of 100 within the p95, and so on, in the last full minute. The first figures come a minute after the start. Of a router with several servers, the worst one's are shown."],
    ["Retries", "Requests that were sent again, as a share of all, against what the retry budget allows."],
    ["Endpoints", "Addresses of a client that can be used now, of all that discovery knows. Others were taken out after failures, and are tried again."],
  ]);
}

function freshness() {
  return el(
    "p",
    null,
    "Figures are read every second while the page is in view, and more rarely where there are very many. If the gateway does not answer, the last figures stay, greyed, and the page says how old they are; it goes on by itself as soon as there is an answer.",
  );
}

/** @param {string} text */
function pathList(text) {
  const paths = text.split("\n").filter(Boolean);
  return el("ul", { class: "paths" }, paths.map((path) => el("li", null, /shutdown|reload/.test(path) ? el("code", null, path) : link(path, path))));
}

async function show() {
  const place = mountShell({ page: "help", title: "Help" });
  const endpoints = el("div", null, state("loading", "Reading the list"));
  fill(
    place,
    section("Pages", pages()),
    section("Figures and words", words()),
    section("Freshness", freshness()),
    section("Keyboard", keyList()),
    section("For programs", el("p", null, "Everything here is read from these paths:"), endpoints),
  );
  try {
    fill(endpoints, pathList(await api("/admin")));
  } catch (error) {
    fill(endpoints, state("error", { title: "The list cannot be read", text: String(/** @type {Error} */ (error).message) }));
  }
}

void show();
