// What all pages of the dashboard share: the frame, the keyboard, the address, and how fresh the figures are.

import { el, fill, setText } from "./dom.js";
import { showKeys, watchKeys } from "./keys.js";

export { copy, el, fill, setText, state, toast } from "./dom.js";
export { ApiError, api, poll } from "./net.js";

/** The parameters and the fragment of the address, changed without loading the page anew. */
export const router = {
  /** @param {string} name @returns {string | null} */
  get(name) {
    return new URLSearchParams(location.search).get(name);
  },

  /**
   * Set parameters; null or "" takes one out. A new entry of the history, unless `replace`.
   * @param {Record<string, string | null>} values
   * @param {{replace?: boolean}} [options]
   */
  set(values, { replace = false } = {}) {
    const query = new URLSearchParams(location.search);
    for (const [name, value] of Object.entries(values)) {
      if (value) query.set(name, value);
      else query.delete(name);
    }
    const text = query.toString();
    go(`${location.pathname}${text ? `?${text}` : ""}${location.hash}`, replace);
  },

  /** The fragment without its `#`, decoded. */
  hash() {
    const raw = location.hash.slice(1);
    try {
      return decodeURIComponent(raw);
    } catch {
      return raw;
    }
  },

  /** @param {string} text @param {{replace?: boolean}} [options] */
  setHash(text, { replace = false } = {}) {
    const encoded = encodeURIComponent(text).replaceAll("%2F", "/").replaceAll("%23", "#").replaceAll("%24", "$").replaceAll("%3A", ":");
    go(`${location.pathname}${location.search}${text ? `#${encoded}` : ""}`, replace);
  },

  /** Call `fn` when the reader goes back or forth, or changes the fragment. @param {() => void} fn */
  onChange(fn) {
    addEventListener("popstate", fn);
    return () => removeEventListener("popstate", fn);
  },
};

/** @param {string} address @param {boolean} replace */
function go(address, replace) {
  if (address === `${location.pathname}${location.search}${location.hash}`) return;
  if (replace) history.replaceState(null, "", address);
  else history.pushState(null, "", address);
}

/** The labels of the routers, as the navigation lists them. @returns {string[]} */
export function routers() {
  return [...document.querySelectorAll("[data-router]")].map((link) => /** @type {HTMLElement} */ (link).dataset.router ?? "");
}

/**
 * Put the page into its frame.
 *
 * @param {{page: string, title: string, subtitle?: string}} options `page` is the name of its entry in the navigation
 * @returns {HTMLElement} the element for the page's content, below its heading
 */
export function mountShell({ page, title, subtitle }) {
  const main = /** @type {HTMLElement} */ (document.getElementById("main"));
  const content = el("div", { class: "content" });
  fill(
    main,
    el(
      "div",
      { class: "page-head" },
      el("div", { class: "page-titles" }, el("h1", null, title), subtitle ? el("p", { class: "subtitle" }, subtitle) : null),
      el("div", { class: "page-tools", id: "page-tools" }),
    ),
    el("p", { class: "notice", id: "stale-notice", role: "status", hidden: true }),
    content,
  );
  document.body.dataset.page = page;
  revealCurrent();
  const tools = document.getElementById("tools");
  if (tools && !tools.hasChildNodes()) tools.append(freshnessChip(), themeButton(), keysButton());
  watchKeys();
  return content;
}

/** Scroll the navigation, a row in narrow windows, so that the entry of this page is in sight. The page itself stays where it is. */
export function revealCurrent() {
  const row = document.querySelector(".nav");
  const entry = row?.querySelector("[aria-current]");
  if (!row || !entry) return;
  const [all, own] = [row.getBoundingClientRect(), entry.getBoundingClientRect()];
  if (own.left < all.left || own.right > all.right) row.scrollLeft += (own.left + own.right - all.left - all.right) / 2;
}

function freshnessChip() {
  return el(
    "span",
    { class: "freshness", id: "freshness", hidden: true },
    el("span", { class: "dot", "aria-hidden": "true" }),
    el("span", { id: "freshness-text", "aria-hidden": "true" }),
    el("span", { id: "freshness-said", class: "visually-hidden", role: "status" }), // without the age: that would be read out each second
  );
}

/** @type {import("./net.js").Freshness | null} */
let shown = null;
let ticking = 0;

/**
 * Say in the frame how fresh the page's figures are; the `onFreshness` of the page's {@link poll}. While they are stale the page's
 * content has the class `is-stale`.
 * @param {import("./net.js").Freshness} freshness
 */
export function showFreshness(freshness) {
  shown = freshness;
  tick();
  if (!ticking) ticking = window.setInterval(tick, 1000);
}

function tick() {
  const chip = document.getElementById("freshness");
  const text = document.getElementById("freshness-text");
  if (!chip || !text || !shown) return;
  const { kind, said } = described(shown, performance.now());
  chip.hidden = false;
  chip.className = `freshness freshness-${kind}`;
  chip.title = shown.error?.message ?? "";
  setText(text, said);
  setText(/** @type {HTMLElement} */ (document.getElementById("freshness-said")), said.split(",")[0]);
  document.getElementById("main")?.classList.toggle("is-stale", kind === "stale");
  const notice = document.getElementById("stale-notice");
  if (!notice) return;
  notice.hidden = kind !== "stale" || shown.at === null;
  setText(notice, shown.error ? `${shown.error.message}. What is shown is what was known last; the page goes on trying.` : "");
}

const LATE = 3_000;

/** @param {import("./net.js").Freshness} freshness @param {number} now */
function described({ at, error, paused }, now) {
  const age = at === null ? null : now - at;
  if (paused) return { kind: "paused", said: "Paused" };
  if (error) return { kind: "stale", said: age === null ? "No answer" : `Stale, ${ago(age)} old` };
  if (age === null) return { kind: "loading", said: "Loading" };
  return age > LATE ? { kind: "live", said: `Live, ${ago(age)} old` } : { kind: "live", said: "Live" };
}

/** @param {number} milliseconds */
export function ago(milliseconds) {
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  return seconds < 86_400 ? `${Math.floor(seconds / 3600)} h` : `${Math.floor(seconds / 86_400)} d`;
}

function keysButton() {
  return el("button", { class: "tool", type: "button", title: "Keyboard shortcuts (?)", "aria-label": "Keyboard shortcuts", onclick: () => showKeys() }, "?");
}

const THEMES = /** @type {const} */ (["system", "light", "dark"]);
const THEME_MARKS = { system: "◐", light: "☀", dark: "☾" };

/** A button that goes through the system's colours, light and dark; the choice is remembered in this browser. */
function themeButton() {
  const button = el("button", { class: "tool", type: "button" });
  const show = () => {
    const theme = currentTheme();
    setText(button, THEME_MARKS[theme]);
    button.title = `Colours: ${theme}`;
    button.setAttribute("aria-label", `Colours: ${theme}; change`);
  };
  button.addEventListener("click", () => {
    setTheme(THEMES[(THEMES.indexOf(currentTheme()) + 1) % THEMES.length]);
    show();
  });
  show();
  return button;
}

/** @returns {"system" | "light" | "dark"} */
function currentTheme() {
  const theme = document.documentElement.dataset.theme;
  return theme === "light" || theme === "dark" ? theme : "system";
}

/** @param {"system" | "light" | "dark"} theme */
function setTheme(theme) {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  try {
    localStorage.setItem("meshgw.theme", theme);
  } catch {
    // storage may be forbidden: the choice holds for this page
  }
  dispatchEvent(new Event("themechange")); // what is drawn on a canvas is drawn anew
}
