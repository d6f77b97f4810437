// What the gateway itself finds wrong: the rules of /admin/lint that fail, in one line until the reader wants to know more.

import { el, fill, setText } from "./dom.js";

/** @typedef {{category: string, issues: string[]}} Rule a rule that fails, as `/admin/lint.json` has it */

const MOST = 20;

/** The issues of the overview; nothing is shown while there are none. */
export function issueList() {
  const summary = el("summary", null);
  const list = el("ul", { class: "issue-list" });
  const element = el("details", { class: "card issues", hidden: true }, summary, list);
  let shown = "";
  const update = (/** @type {Rule[]} */ rules) => {
    const found = rules.flatMap(({ category, issues }) => issues.map((issue) => ({ category, issue })));
    const text = JSON.stringify(found);
    if (text === shown) return;
    shown = text;
    element.hidden = found.length === 0;
    setText(summary, titleOf(found));
    const rest = found.length - MOST;
    fill(
      list,
      found.slice(0, MOST).map(({ category, issue }) => el("li", null, el("span", { class: "badge badge-warn" }, category), el("span", { class: "issue" }, issue))),
      el("li", { class: "small" }, el("a", { href: "/admin/lint" }, rest > 0 ? `${rest} more, and all rules` : "All rules")),
    );
  };
  return { element, update };
}

/** @param {{category: string, issue: string}[]} found */
function titleOf(found) {
  const categories = [...new Set(found.map(({ category }) => category))].join(", ").toLowerCase();
  return `${found.length} ${found.length === 1 ? "thing needs" : "things need"} a look: ${categories}`;
}
