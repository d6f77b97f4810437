// @ts-check
/** The playground: what the gateway makes of a name, by a router's dtab or one that is tried out. Nothing here changes anything. */

import { taken } from "./delegation.js";
import { Seen, rootItem } from "./delegationview.js";
import { entries } from "./dtab.js";
import { DtabPanel } from "./dtabpanel.js";
import { describeKey } from "./keys.js";
import { containing, placeUrl, readPlace, suggestions } from "./place.js";
import { playgroundParts } from "./playgroundparts.js";
import { known, recall, remember } from "./routers.js";
import { ApiError, api, copy, el, fill, mountShell, poll, showFreshness, state } from "./shell.js";
import { TreeView } from "./treeview.js";
import { failure, invitation, summary, unknownRouter } from "./verdict.js";

/**
 * @typedef {import("./delegation.js").TreeNode} TreeNode
 * @typedef {import("./routers.js").Router} Router
 */

const EVERY = 3_000;
const TYPING = 350;
const LONGEST = 5_000; // the gateway gives up after two seconds
const MOST_SUGGESTED = 12;
const MOST_OFFERED = 100;

class Playground {
  /** @param {HTMLElement} content @param {Router[]} routers @param {string[]} names known to namers */
  constructor(content, routers, names) {
    this.routers = routers;
    this.names = names;
    this.seen = new Seen();
    this.label = "";
    this.name = "";
    /** @type {string[]} */
    this.suggested = [];
    this.asked = "";
    this.answered = "";
    this.unreadable = "";
    this.timer = 0;
    this.isAsking = false;
    this.underWay = new AbortController();
    /** @type {ReturnType<typeof poll> | undefined} */
    this.polling = undefined;
    this.dtab = new DtabPanel({ onTrial: () => this.trialChanged() });
    this.parts = playgroundParts(content, routers, this.dtab.element, {
      submitted: () => this.submitted(),
      typed: () => this.offer(),
      routerChosen: () => this.routerChosen(),
      liveChanged: () => this.liveChanged(),
      opened: (isOpen) => this.tree.setAll(isOpen),
    });
    this.tree = new TreeView(this.parts.treeList, {
      onFocus: (item) => this.dtab.point(item?.dataset.prefix ? { prefix: item.dataset.prefix, dst: item.dataset.dst ?? "" } : null),
      onAct: (item) => void copy(item.dataset.copies ?? ""),
    });
    this.readAddress();
    this.polling = poll((signal) => this.ask(signal), { every: EVERY, onFreshness: showFreshness });
    addEventListener("popstate", () => this.readAddress());
    addEventListener("hashchange", () => this.readAddress());
  }

  /** @returns {Router | undefined} */
  get router() {
    return this.routers.find(({ label }) => label === this.label);
  }

  /** Take over what the address says: at the start, and when the reader goes back or forth. */
  readAddress() {
    const place = readPlace(location);
    this.label = place.router ?? this.routers[0]?.label ?? "";
    this.parts.select.value = this.label;
    if (document.activeElement !== this.parts.path) {
      this.parts.path.value = place.path;
    }
    this.name = place.path;
    this.dtab.setBase(this.router);
    this.dtab.setTrial(place.trial);
    this.suggest();
    this.askAnew();
  }

  /** Find out which names there may be. */
  suggest() {
    this.suggested = [...new Set([...recall(), ...suggestions(entries(this.dtab.text), this.names, Infinity)])];
    this.offer();
  }

  /** Offer those that go on as what is typed; browsers are slow with thousands of them. */
  offer() {
    const names = containing(this.suggested, this.parts.path.value.trim(), MOST_OFFERED);
    fill(
      this.parts.list,
      names.map((name) => el("option", { value: name })),
    );
  }

  /** @param {boolean} replace */
  writeAddress(replace) {
    const url = placeUrl({ router: this.label, path: this.name, trial: this.dtab.trial });
    if (replace) {
      history.replaceState(null, "", url);
    } else if (url !== location.pathname + location.search + location.hash) {
      history.pushState(null, "", url);
    }
  }

  submitted() {
    this.name = this.parts.path.value.trim();
    this.writeAddress(false);
    this.askAnew();
  }

  routerChosen() {
    this.label = this.parts.select.value;
    this.dtab.trial = null;
    this.writeAddress(false);
    this.readAddress();
  }

  trialChanged() {
    clearTimeout(this.timer);
    this.timer = window.setTimeout(() => {
      this.writeAddress(true);
      this.askAnew();
    }, TYPING);
  }

  liveChanged() {
    if (this.parts.live.checked) this.polling?.resume();
    else this.polling?.pause();
  }

  /** Another question: what is under way is of no use any more. */
  askAnew() {
    this.underWay.abort();
    if (!this.isAsking) this.polling?.now(); // else what was ended asks again
  }

  /** What is to be answered now. */
  get question() {
    return JSON.stringify([this.label, this.dtab.text, this.name]);
  }

  /** Ask until the answer is one to the question as it is then. @param {AbortSignal} [signal] */
  async ask(signal) {
    if (this.isAsking) return;
    this.isAsking = true;
    try {
      while (!(await this.isAnswered(signal)));
    } finally {
      this.isAsking = false;
    }
  }

  /** Ask once; false if the question has changed meanwhile. @param {AbortSignal} [signal] @returns {Promise<boolean>} */
  async isAnswered(signal) {
    const question = this.question;
    if (question === this.unreadable) return true; // what cannot be read stays so
    if (!this.router || !this.name) {
      this.say(this.router ? this.invitation() : unknownRouter(this.label, this.name, this.routers));
      return true;
    }
    if (question !== this.asked) {
      this.parts.result.classList.add("is-outdated");
      if (!this.answered) this.say(state("loading", `Resolving ${this.name}`));
    }
    this.underWay = new AbortController();
    const either = signal ? AbortSignal.any([signal, this.underWay.signal]) : this.underWay.signal;
    const body = { namespace: this.label, dtab: this.dtab.text, path: this.name };
    try {
      const tree = await api("/delegator.json", { body, signal: either, timeout: LONGEST });
      if (question !== this.question) return false;
      this.answer(question, tree);
    } catch (error) {
      if (question !== this.question) return false;
      if (!(error instanceof ApiError)) throw error;
      this.refused(question, error);
      if (error.status === 0) throw error; // the polling waits longer after these, and says so
    }
    return true;
  }

  /** @param {string} question @param {TreeNode} tree */
  answer(question, tree) {
    const text = question + JSON.stringify(tree);
    this.complain(null, null);
    this.unreadable = "";
    this.parts.result.classList.remove("is-outdated", "is-refused");
    if (text === this.answered) return;
    const isSame = question === this.asked;
    if (!isSame) {
      remember(this.name);
      this.tree.closed.clear();
    }
    this.asked = question;
    this.answered = text;
    this.seen.turn(isSame);
    this.show(tree);
  }

  /** @param {TreeNode} tree */
  show(tree) {
    this.tree.remember();
    fill(this.parts.treeList, rootItem(tree, this.seen));
    this.tree.refresh();
    this.parts.treeCard.hidden = false;
    fill(this.parts.verdict, summary(tree, this.name));
    const used = [...taken(tree)].flatMap(({ dentry }) => (dentry ? [dentry] : []));
    this.dtab.mark(used);
  }

  /** @param {string} question @param {ApiError} error */
  refused(question, { status, message }) {
    if (status === 400) {
      this.unread(question, message);
      return;
    }
    this.complain(null, null);
    if (status === 0 && question === this.asked) return; // what was known stays; the frame says how old it is
    this.say(failure(status, message, () => this.askAnew()));
  }

  /** The name or the dtab cannot be read: what was known before stays, but is told to be of another question. @param {string} question @param {string} message */
  unread(question, message) {
    this.unreadable = question;
    const isPath = message.startsWith("Invalid path");
    this.complain(isPath ? message : null, isPath ? null : message);
    if (this.answered) {
      this.parts.result.classList.add("is-outdated", "is-refused");
      return;
    }
    const title = isPath ? "This is not a name" : "This dtab cannot be read";
    const text = isPath ? "A name begins with a slash and has no empty part: /svc/users" : "The editor tells what is wrong and where.";
    this.say(state("error", { title, text }));
  }

  /** @param {string | null} path @param {string | null} dtab */
  complain(path, dtab) {
    this.parts.pathProblem.hidden = path === null;
    this.parts.pathProblem.textContent = path ?? "";
    this.parts.path.setAttribute("aria-invalid", String(path !== null));
    this.dtab.complain(dtab);
  }

  invitation() {
    const names = [...recall(), ...suggestions(entries(this.dtab.text), this.names, MOST_SUGGESTED)];
    return invitation([...new Set(names)].slice(0, MOST_SUGGESTED), (name) => {
      this.parts.path.value = name;
      this.submitted();
    });
  }

  /** Show a panel in place of a tree. @param {HTMLElement} panel */
  say(panel) {
    this.asked = "";
    this.answered = "";
    this.parts.treeCard.hidden = true;
    this.parts.result.classList.remove("is-outdated", "is-refused");
    this.dtab.mark([]);
    this.dtab.point(null);
    fill(this.parts.verdict, panel);
  }
}

async function start() {
  const content = mountShell({ page: "dtab", title: "Dtab playground", subtitle: "How a router resolves a name, step by step" });
  describeKey("← →", "Close and open a step");
  describeKey("Enter", "Copy the name of a step");
  fill(content, state("loading", "Reading the configuration"));
  try {
    const [routers, names] = await Promise.all([known(), api("/bound-names.json").catch(() => [])]);
    fill(content);
    new Playground(content, routers, names);
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    fill(
      content,
      state(
        "error",
        { title: "The configuration cannot be read", text: error.message },
        { label: "Try again", onclick: () => void start() },
      ),
    );
  }
}

void start();
