// @ts-check
/**
 * What a delegation tree means: where a request would go, and why each step ended as it did.
 *
 * The tree is that of /delegator.json: all alternatives are followed there, although routing stops at the first that is not negative.
 * This module has no page: it turns data into data, and words.
 */

/**
 * @typedef {{prefix: string, dst: string}} Dentry
 * @typedef {{ip: string, port: number, meta?: Record<string, unknown>}} Address
 * @typedef {{type: string, addrs?: Address[], meta?: Record<string, unknown>, cause?: string, stale?: string}} Addr
 * @typedef {{addr: Addr, id: string, path: string}} BoundName
 * @typedef {{type: string, path: string, dentry?: Dentry, message?: string, delegate?: TreeNode, alt?: TreeNode[],
 *   union?: {weight: number, tree: TreeNode}[], bound?: BoundName, name?: string, tree?: TreeNode}} TreeNode
 * @typedef {"leaf" | "neg" | "fail" | "empty" | "exception"} Verdict
 * @typedef {{node: TreeNode, order: number | null, weight: number | null, share: number | null}} Branch
 */

const ENDS = new Set(["leaf", "neg", "fail", "empty", "exception"]);
const WEIGHT_KEY = "endpoint_addr_weight";

/**
 * What comes directly below a node. Of alternatives the `order` is counted from 1; of a union each has its `weight`, and the
 * `share` of requests it gets: only branches that answer are drawn from.
 * @param {TreeNode} node
 * @returns {Branch[]}
 */
export function branches(node) {
  if (node.alt) return node.alt.map((each, index) => ({ node: each, order: index + 1, weight: null, share: null }));
  if (node.union) return shares(node.union).map(({ weight, tree, share }) => ({ node: tree, order: null, weight, share }));
  const below = node.delegate ?? node.tree;
  return below ? [{ node: below, order: null, weight: null, share: null }] : [];
}

/** @param {{weight: number, tree: TreeNode}[]} union */
function shares(union) {
  const drawn = union.map(({ tree }) => isDrawn(tree));
  const total = union.reduce((sum, { weight }, index) => sum + (drawn[index] ? weight : 0), 0);
  const count = drawn.filter(Boolean).length;
  return union.map(({ weight, tree }, index) => {
    if (!drawn[index]) return { weight, tree, share: 0 };
    // with no weight at all the draw is uniform
    return { weight, tree, share: total > 0 ? weight / total : 1 / count };
  });
}

/** @param {TreeNode} tree */
function isDrawn(tree) {
  const answer = verdict(tree);
  return answer === "leaf" || answer === "empty";
}

/**
 * What routing makes of a node: of alternatives the first that is not negative, of a union what any branch has to offer.
 * @param {TreeNode} node
 * @returns {Verdict}
 */
export function verdict(node) {
  if (node.alt) return node.alt.map(verdict).find((answer) => answer !== "neg") ?? "neg";
  if (node.union) {
    const answers = node.union.map(({ tree }) => verdict(tree));
    if (answers.length > 0 && answers.every((answer) => answer === "exception")) return "exception";
    return answers.includes("leaf") ? "leaf" : answers.includes("empty") ? "empty" : "neg";
  }
  const [below] = branches(node);
  if (below) return verdict(below.node);
  return ENDS.has(node.type) ? /** @type {Verdict} */ (node.type) : "neg";
}

/**
 * The nodes that a request passes, the root first.
 * @param {TreeNode} root
 * @returns {Set<TreeNode>}
 */
export function taken(root) {
  /** @type {Set<TreeNode>} */
  const found = new Set();
  const waiting = [root];
  for (let node = waiting.pop(); node; node = waiting.pop()) {
    found.add(node);
    waiting.push(...followed(node));
  }
  return found;
}

/** @param {TreeNode} node @returns {TreeNode[]} */
function followed(node) {
  if (node.alt) return node.alt.filter((each) => verdict(each) !== "neg").slice(0, 1);
  if (node.union) {
    return shares(node.union)
      .filter(({ share }) => share > 0)
      .map(({ tree }) => tree);
  }
  return branches(node).map((below) => below.node);
}

/**
 * The leaves that requests reach, each with its share of them.
 * @param {TreeNode} root
 * @returns {{bound: BoundName, share: number}[]}
 */
export function destinations(root) {
  /** @type {{bound: BoundName, share: number}[]} */
  const found = [];
  /** @param {TreeNode} node @param {number} share */
  const visit = (node, share) => {
    if (node.type === "leaf" && node.bound) {
      found.push({ bound: node.bound, share });
      return;
    }
    const below = new Map(branches(node).map((branch) => [branch.node, branch.share ?? 1]));
    for (const next of followed(node)) {
      visit(next, share * (below.get(next) ?? 1));
    }
  };
  visit(root, 1);
  return found;
}

/**
 * A node's outcome in plain language; empty for steps that only lead on.
 * @param {TreeNode} node
 * @returns {string}
 */
export function explain(node) {
  switch (node.type) {
    case "leaf":
      return addressText(node.bound?.addr);
    case "neg":
      return explainNegative(node);
    case "fail":
      return "Fails on purpose: no further alternative is tried.";
    case "empty":
      return "The name exists but has no replicas on purpose: requests fail, and no further alternative is tried.";
    case "exception":
      return `The lookup failed: ${node.message ?? "no reason was given"}. Among alternatives a failure ends the search.`;
    case "alt":
      return "Tried in this order; the first that is known is taken.";
    case "union":
      return "Each request draws one of these by weight.";
    case "transformation":
      return `The transformer ${node.name ?? ""} changes what ${node.bound?.id ?? "the name"} leads to.`;
    default:
      return "";
  }
}

/** @param {TreeNode} node */
function explainNegative(node) {
  if (node.message) return `Taken as unknown, because its source fails: ${node.message}`;
  if (node.path === "~") return "The entry itself says that there is no such name.";
  if (node.path.startsWith("/#/")) return "The namer knows no such name.";
  return "No dtab entry and no namer matches this name.";
}

/**
 * The state of an address set in words.
 * @param {Addr | undefined} addr
 * @returns {string}
 */
export function addressText(addr) {
  switch (addr?.type) {
    case "bound": {
      const count = addr.addrs?.length ?? 0;
      const known =
        count === 0 ? "No addresses now: requests fail until there are some." : count === 1 ? "1 address" : `${count} addresses`;
      return addr.stale ? `${known} (last good answer; since then: ${addr.stale})` : known;
    }
    case "failed":
      return `Addresses cannot be had: ${addr.cause ?? "no reason was given"}`;
    case "neg":
      return "No addresses: the name does not exist any more.";
    default:
      return "Addresses are not known yet.";
  }
}

/**
 * An address as `host:port`, an IPv6 one in brackets, and what is said of it.
 * @param {Address} address
 * @returns {{text: string, weight: number | null, notes: string[]}}
 */
export function addressLabel(address) {
  const host = address.ip.includes(":") ? `[${address.ip}]` : address.ip;
  const meta = address.meta ?? {};
  const weight = typeof meta[WEIGHT_KEY] === "number" ? /** @type {number} */ (meta[WEIGHT_KEY]) : null;
  const notes = Object.entries(meta)
    .filter(([key]) => key !== WEIGHT_KEY)
    .map(([key, value]) => `${key}: ${typeof value === "string" ? value : JSON.stringify(value)}`);
  return { text: `${host}:${address.port}`, weight, notes };
}

/**
 * A share of requests as a percentage, as precise as it is small.
 * @param {number} share
 * @returns {string}
 */
export function percent(share) {
  const value = share * 100;
  if (value > 0 && value < 0.1) return "<0.1 %";
  const text = value >= 99.95 || value === 0 || Number.isInteger(value) ? value.toFixed(0) : value.toFixed(1);
  return `${text} %`;
}

/**
 * The outcome in one sentence, for a person who asked what happens to requests for `path`.
 * @param {TreeNode} root
 * @returns {{kind: "good" | "warn" | "bad", title: string, text: string}}
 */
export function outcome(root) {
  switch (verdict(root)) {
    case "leaf":
      return reached(root);
    case "fail":
      return { kind: "bad", title: "Fails on purpose", text: "The dtab says ! here: requests are refused with a 502." };
    case "empty":
      return { kind: "bad", title: "No replicas", text: "The dtab says that this name has no replicas: requests are refused with a 502." };
    case "exception":
      return { kind: "bad", title: "The lookup fails", text: `Requests fail: ${firstMessage(root)}` };
    default:
      return unknown(root);
  }
}

/** @param {TreeNode} root @returns {{kind: "bad", title: string, text: string}} */
function unknown(root) {
  const why = failing(root);
  if (why === null) return { kind: "bad", title: "Unknown name", text: "Nothing leads to an address: requests are refused with a 502." };
  const text = `Whether there is such a name cannot be told (${why}). Until then requests are refused with a 502.`;
  return { kind: "bad", title: "A source fails", text };
}

/** @param {TreeNode} root @returns {{kind: "good" | "warn" | "bad", title: string, text: string}} */
function reached(root) {
  const found = destinations(root);
  const count = found.reduce((sum, { bound }) => sum + (bound.addr.addrs?.length ?? 0), 0);
  const lacking = found.filter(({ bound }) => !bound.addr.addrs?.length).length;
  const where = found.length === 1 ? "1 destination" : `${found.length} destinations`;
  if (count === 0)
    return { kind: "bad", title: "Bound, but no address", text: `Requests lead to ${where} without any address: they fail.` };
  const text = `Requests go to ${where} with ${count === 1 ? "1 address" : `${count} addresses`}.`;
  if (lacking > 0)
    return {
      kind: "warn",
      title: "Partly without addresses",
      text: `${text} ${lacking} of them without any: its share of requests fails.`,
    };
  const stale = found.find(({ bound }) => bound.addr.stale)?.bound.addr.stale;
  if (stale) return { kind: "warn", title: "Resolves, by the last good answer", text: `${text} Their source has failed since: ${stale}` };
  const why = failing(root);
  if (why !== null) return { kind: "warn", title: "Resolves, but a source fails", text: `${text} What is tried before is taken as unknown (${why}).` };
  return { kind: "good", title: "Resolves", text };
}

/** Why a step that routing passes over, or ends with, is taken as unknown although it may not be; null if there is none. @param {TreeNode} root */
function failing(root) {
  for (const node of passedOver(root)) {
    if (node.type === "neg" && node.message) return node.message;
  }
  return null;
}

/** The steps that routing looks at in vain. @param {TreeNode} node @returns {Iterable<TreeNode>} */
function* passedOver(node) {
  if (verdict(node) === "neg") {
    yield* everyNode(node);
    return;
  }
  for (const { node: below } of branches(node)) {
    yield* passedOver(below);
    if (node.alt && verdict(below) !== "neg") return; // those behind are not tried
  }
}

/** @param {TreeNode} root */
function firstMessage(root) {
  for (const node of taken(root)) {
    if (node.type === "exception") return node.message ?? "";
  }
  return [...everyNode(root)].find((node) => node.type === "exception")?.message ?? "";
}

/** @param {TreeNode} node @returns {Iterable<TreeNode>} */
function* everyNode(node) {
  yield node;
  for (const below of branches(node)) {
    yield* everyNode(below.node);
  }
}
