// The keyboard: g and a letter go to a page, / finds, ? lists what there is.

import { el } from "./dom.js";

const WITHIN = 1_200; // milliseconds between g and the letter
let isWatching = false;
let began = -Infinity; // when g was pressed

/** @type {{keys: string, does: string}[]} */
const own = [];

/** Tell of a shortcut of the page, for the list. @param {string} keys @param {string} does */
export function describeKey(keys, does) {
  if (!own.some((one) => one.keys === keys)) own.push({ keys, does });
}

/** Begin to listen; once for a page. */
export function watchKeys() {
  if (isWatching) return;
  isWatching = true;
  document.addEventListener("keydown", pressed);
}

/** @param {KeyboardEvent} event */
function pressed(event) {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target)) return;
  const wasBegun = performance.now() - began < WITHIN;
  began = -Infinity;
  if (wasBegun) goTo(event);
  else if (event.key === "g") began = performance.now();
  else if (event.key === "/") find(event);
  else if (event.key === "?") showKeys();
}

/** @param {EventTarget | null} target */
function isTyping(target) {
  return target instanceof HTMLElement && (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName));
}

/** @param {KeyboardEvent} event */
function goTo(event) {
  const link = pages().find((one) => one.dataset.key === event.key);
  if (!link) return;
  event.preventDefault();
  link.click();
}

/** @param {KeyboardEvent} event */
function find(event) {
  const fields = /** @type {HTMLElement[]} */ ([...document.querySelectorAll("[data-find], input[type=search]")]);
  const field = fields.find((one) => one.offsetParent !== null); // the first that is shown
  if (!field) return;
  event.preventDefault();
  field.focus();
}

/** @returns {HTMLElement[]} */
function pages() {
  return [...document.querySelectorAll("[data-key]")].filter((one) => one instanceof HTMLElement);
}

/** Show the list of shortcuts. */
export function showKeys() {
  const found = /** @type {HTMLDialogElement | null} */ (document.getElementById("keys"));
  if (found?.open) {
    found.close();
    return;
  }
  found?.remove();
  const dialog = /** @type {HTMLDialogElement} */ (
    el("dialog", { id: "keys", class: "dialog", "aria-labelledby": "keys-title" }, el("h2", { id: "keys-title" }, "Keyboard"), keyList(), closing())
  );
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  document.body.append(dialog);
  dialog.showModal();
}

/** The shortcuts with what they do, as a list of definitions. */
export function keyList() {
  const rows = [
    ...pages().map((one) => ({ keys: `g ${one.dataset.key}`, does: one.textContent ?? "" })),
    { keys: "/", does: "Find in the page" },
    ...own,
    { keys: "?", does: "This list" },
    { keys: "Esc", does: "Close it" },
  ];
  return el(
    "dl",
    { class: "keys" },
    rows.map(({ keys, does }) => el("div", null, el("dt", null, keys.split(" ").map((key) => el("kbd", null, key))), el("dd", null, does))),
  );
}

function closing() {
  return el("form", { method: "dialog" }, el("button", { class: "button", type: "submit" }, "Close"));
}
