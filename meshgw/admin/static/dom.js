// Building blocks of pages: elements, panels that say what is going on, and short messages.

/** @typedef {Node | string | number | null | undefined | false | Child[]} Child */

/**
 * An element with attributes and children. Text is always text: nothing here reads HTML.
 *
 * Attributes: `class`, `dataset` (an object), `style` (an object, set by the CSSOM as the page's policy demands), `on…` (listeners);
 * properties that are not attributes (`value`, `checked`, `disabled`, …) are set as such; null, undefined and false leave one out.
 *
 * @param {string} tag
 * @param {Record<string, any> | null} [attributes]
 * @param {...Child} children
 * @returns {HTMLElement}
 */
export function el(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) setAttribute(element, name, value);
  append(element, children);
  return element;
}

const PROPERTIES = new Set(["value", "checked", "disabled", "hidden", "indeterminate", "open", "readOnly", "selected", "tabIndex"]);

/** @param {HTMLElement} element @param {string} name @param {any} value */
function setAttribute(element, name, value) {
  if (value === null || value === undefined || value === false) return;
  if (name.startsWith("on") && typeof value === "function") element.addEventListener(name.slice(2).toLowerCase(), value);
  else if (name === "dataset") Object.assign(element.dataset, value);
  else if (name === "style") for (const [key, text] of Object.entries(value)) element.style.setProperty(key, String(text));
  else if (PROPERTIES.has(name)) /** @type {any} */ (element)[name] = value;
  else element.setAttribute(name, value === true ? "" : String(value));
}

/** @param {Node} element @param {Child[]} children */
function append(element, children) {
  for (const child of children) {
    if (Array.isArray(child)) append(element, child);
    else if (child instanceof Node) element.appendChild(child);
    else if (child !== null && child !== undefined && child !== false) element.appendChild(document.createTextNode(String(child)));
  }
}

/** Replace what is in an element. @param {Element} element @param {...Child} children */
export function fill(element, ...children) {
  element.replaceChildren();
  append(element, children);
}

/** Set a text only if it differs: figures that stay cost no layout. @param {Node} node @param {string} text */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

const MARKS = { empty: "○", loading: "", error: "!", stale: "◔", info: "i" };

/**
 * A panel for when there is nothing to show, or not yet, or no more.
 *
 * @param {"empty" | "loading" | "error" | "stale" | "info"} kind
 * @param {string | {title: string, text?: string}} text
 * @param {Child | {label: string, onclick?: () => void, href?: string}} [action] what can be done about it: a node, or a button or link
 */
export function state(kind, text, action) {
  const { title, text: more } = typeof text === "string" ? { title: text, text: "" } : text;
  return el(
    "div",
    { class: `state state-${kind}`, role: kind === "error" ? "alert" : "status" },
    el("span", { class: "state-mark", "aria-hidden": "true" }, MARKS[kind]),
    el("div", { class: "state-text" }, el("p", { class: "state-title" }, title), more ? el("p", null, more) : null, actionOf(action)),
  );
}

/** @param {any} action @returns {Child} */
function actionOf(action) {
  if (!action || action instanceof Node || typeof action !== "object" || Array.isArray(action)) return action;
  if (action.href) return el("a", { class: "button", href: action.href }, action.label);
  return el("button", { class: "button", type: "button", onclick: action.onclick }, action.label);
}

/** Say something for a moment. @param {string} text @param {{kind?: "info" | "error"}} [options] */
export function toast(text, { kind = "info" } = {}) {
  let place = document.getElementById("toasts");
  if (!place) {
    place = el("div", { id: "toasts", class: "toasts", role: "status", "aria-live": "polite" });
    document.body.append(place);
  }
  const message = el("div", { class: `toast toast-${kind}` }, text);
  place.append(message);
  while (place.children.length > 4) place.firstElementChild?.remove();
  setTimeout(() => message.remove(), kind === "error" ? 8000 : 4000);
}

/** Put a text on the clipboard; says so, or says that it could not. @param {string} text */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    toast("Copied");
  } catch {
    toast(`Could not copy: the browser allows it on secure pages only. The text: ${text}`, { kind: "error" });
  }
}
