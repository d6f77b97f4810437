// @ts-check
/** What the playground says above a delegation, or in its place. */

import { destinations, outcome, percent } from "./delegation.js";
import { copy, el, state } from "./dom.js";
import { placeUrl } from "./place.js";

/**
 * @typedef {import("./delegation.js").TreeNode} TreeNode
 * @typedef {import("./routers.js").Router} Router
 */

/** What becomes of requests for a name, and where they go. @param {TreeNode} tree @param {string} name */
export function summary(tree, name) {
  const { kind, title, text } = outcome(tree);
  const found = destinations(tree);
  return el(
    "section",
    { class: `card verdict verdict-${kind}`, "aria-labelledby": "verdict-title", role: "status" },
    el(
      "h2",
      { id: "verdict-title" },
      el("span", { class: `badge badge-${kind}` }, { good: "✓", warn: "!", bad: "✕" }[kind], " ", title),
      " ",
      el("code", null, name),
    ),
    el("p", { class: "outdated-note" }, "This was the answer before; what is asked now cannot be read."),
    el("p", null, text),
    found.length
      ? el(
          "ul",
          { class: "destinations" },
          found.map(({ bound, share }) =>
            el(
              "li",
              null,
              found.length > 1 ? el("span", { class: "node-share" }, percent(share)) : null,
              el("code", null, bound.id),
              el(
                "button",
                { type: "button", class: "bound-copy", "aria-label": `Copy ${bound.id}`, onclick: () => void copy(bound.id) },
                "copy",
              ),
            ),
          ),
        )
      : null,
  );
}

/** Why there is no tree. @param {number} status @param {string} message @param {() => void} again */
export function failure(status, message, again) {
  const retry = { label: "Try again", onclick: again };
  if (status === 501) return state("info", { title: "This router's interpreter cannot show delegations", text: message });
  if (status === 503 || status === 504)
    return state(
      "error",
      { title: "No answer in time", text: `${message} A namer may wait for its source; requests for this name wait as well.` },
      retry,
    );
  if (status === 401 || status === 403) return state("error", { title: "Not allowed", text: message });
  if (message.startsWith("Max recursion"))
    return state("error", { title: "This name leads in a circle", text: `Its entries lead back to it. Requests for it fail: ${message}` });
  return state("error", { title: status ? `The gateway answered ${status}` : "No answer", text: message }, retry);
}

/** @param {string} label @param {string} name @param {Router[]} routers */
export function unknownRouter(label, name, routers) {
  const links = routers.map(({ label: other }) =>
    el("a", { class: "button", href: placeUrl({ router: other, path: name, trial: null }) }, other),
  );
  return state(
    "error",
    { title: `There is no router ${label}`, text: "These are the routers of this gateway:" },
    el("div", { class: "choices" }, links),
  );
}

/** Asks for a name. @param {string[]} names to choose from @param {(name: string) => void} chosen */
export function invitation(names, chosen) {
  const choices = names.map((name) => el("button", { type: "button", class: "button mono", onclick: () => chosen(name) }, name));
  const text = "A router gives each request a name such as /svc/users; its dtab leads from there to addresses. Type one to see every step.";
  return state("empty", { title: "Which name?", text }, choices.length ? el("div", { class: "choices" }, choices) : null);
}
