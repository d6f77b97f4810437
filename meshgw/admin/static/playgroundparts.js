// @ts-check
/** The elements of the playground that are there whatever is asked. */

import { copy, el, fill } from "./dom.js";

/**
 * @typedef {object} Listeners
 * @property {() => void} submitted
 * @property {() => void} typed the name has changed
 * @property {() => void} routerChosen
 * @property {() => void} liveChanged
 * @property {(isOpen: boolean) => void} opened all steps are to be opened or closed
 */

/**
 * Put the elements into the page; those that change are given back.
 * @param {HTMLElement} content
 * @param {{label: string}[]} routers
 * @param {HTMLElement} beside what stands beside the answer
 * @param {Listeners} listeners
 */
export function playgroundParts(content, routers, beside, { submitted, typed, routerChosen, liveChanged, opened }) {
  const options = routers.map(({ label }) => el("option", { value: label }, label));
  const select = /** @type {HTMLSelectElement} */ (el("select", { id: "router", class: "field", onchange: routerChosen }, options));
  const path = nameField(typed);
  const list = el("datalist", { id: "names" });
  const live = /** @type {HTMLInputElement} */ (el("input", { type: "checkbox", id: "live", checked: true, onchange: liveChanged }));
  const pathProblem = el("p", { id: "path-problem", class: "problem", role: "alert", hidden: true });
  const verdict = el("div", { class: "verdict-place" });
  const treeList = el("ul", { role: "tree", class: "delegation", "aria-label": "Delegation" });
  const treeCard = el("section", { class: "card section", "aria-labelledby": "tree-title", hidden: true }, treeHead(opened), treeList);
  const result = el("div", { class: "section result" }, verdict, treeCard);
  const form = el(
    "form",
    { class: "ask" },
    el("div", { class: "ask-router" }, el("label", { for: "router" }, "Router"), select),
    el("div", { class: "ask-path" }, el("label", { for: "path" }, "Name"), path, list),
    el("button", { class: "button button-primary", type: "submit" }, "Resolve"),
    el("label", { class: "check" }, live, " Live"),
    el("button", { class: "button", type: "button", onclick: () => void copy(location.href) }, "Copy link"),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    submitted();
  });
  fill(content, form, pathProblem, el("div", { class: "playground" }, result, beside));
  return { select, path, list, live, pathProblem, verdict, treeList, treeCard, result };
}

/** @param {() => void} typed */
function nameField(typed) {
  const attributes = {
    id: "path",
    class: "field mono",
    list: "names",
    placeholder: "/svc/users",
    autocomplete: "off",
    autocapitalize: "off",
    spellcheck: "false",
    "data-find": "",
    "aria-describedby": "path-problem",
    oninput: typed,
  };
  return /** @type {HTMLInputElement} */ (el("input", attributes));
}

/** @param {(isOpen: boolean) => void} opened */
function treeHead(opened) {
  return el(
    "div",
    { class: "section-head" },
    el("h2", { id: "tree-title" }, "Delegation"),
    el(
      "div",
      { class: "dtab-tools" },
      el("button", { class: "button", type: "button", onclick: () => opened(true) }, "Expand all"),
      el("button", { class: "button", type: "button", onclick: () => opened(false) }, "Collapse all"),
    ),
  );
}
