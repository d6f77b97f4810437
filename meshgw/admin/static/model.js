// The metrics tree as routers with their servers, services and clients, each with its recent history. Pure: no document, no clock.
//
// The names are those of `/admin/metrics.json?tree=1`: a node carries `counter`, `gauge` or `stat.…` beside its children.

import { History } from "./history.js";

/** @typedef {Record<string, any>} Node_ a node of the metrics tree */

export const RATE_WINDOW = 10_000; // rates are means of ten seconds: a single one jumps
export const SHARE_WINDOW = 30_000; // a share needs more requests than a rate
const ROUTER_READINGS = 181; // three minutes and the reading before
const PART_READINGS = 61;

/** @param {Node_ | undefined} node @param {...string} names */
export function counter(node, ...names) {
  return below(node, names)?.counter ?? 0;
}

/** @param {Node_ | undefined} node @param {...string} names @returns {number | null} */
export function gauge(node, ...names) {
  return below(node, names)?.gauge ?? null;
}

/** @param {Node_ | undefined} node @param {string[]} names */
function below(node, names) {
  let found = node;
  for (const name of names) found = found?.[name];
  return found;
}

/** @typedef {{count: number, p50?: number, p95?: number, p99?: number, p9990?: number, max?: number}} Latency */

/**
 * The latency of the last full minute: null before the first minute has ended, a count of 0 if nothing was asked in it.
 * @param {Node_ | undefined} node @returns {Latency | null}
 */
export function latency(node) {
  const found = node?.request_latency_ms;
  if (!found || found["stat.count"] === undefined) return null;
  const figure = (/** @type {string} */ name) => found[`stat.${name}`];
  return { count: figure("count"), p50: figure("p50"), p95: figure("p95"), p99: figure("p99"), p9990: figure("p9990"), max: figure("max") };
}

/** @param {Node_ | undefined} node @param {number} retries */
function counts(node, retries) {
  return { requests: counter(node, "requests"), success: counter(node, "success"), failures: counter(node, "failures"), retries };
}

/** A server, a service, a client, or a service through a client. */
export class Part {
  /** @param {string} router @param {"server" | "service" | "client"} kind @param {string} id @param {boolean} isShort */
  constructor(router, kind, id, isShort) {
    this.router = router;
    this.kind = kind;
    this.id = id;
    this.key = `${router}\n${kind}\n${id}`;
    this.history = new History(isShort ? 16 : PART_READINGS);
    /** @type {Node_} */
    this.node = {};
    /** @type {Map<string, Part>} the services through a client */
    this.through = new Map();
  }

  /** The name as people write it: an address with a colon, a name with its leading slash. */
  get name() {
    return this.kind === "server" ? this.id.replace(/\/(\d+)$/, ":$1") : `/${this.id}`;
  }

  get pending() {
    return gauge(this.node, "pending");
  }

  get connections() {
    return gauge(this.node, "connections");
  }

  get rate() {
    return this.history.rate("requests", RATE_WINDOW);
  }

  get share() {
    return this.history.successShare(SHARE_WINDOW);
  }

  get latency() {
    return latency(this.node);
  }

  get retries() {
    return this.history.rate("retries", RATE_WINDOW);
  }

  get total() {
    return counter(this.node, "requests");
  }

  /** @param {number} now @param {number | null} before the time of the reading before @param {Node_} node */
  take(now, before, node) {
    this.node = node;
    const retries = counter(node, "retries", "total") + counter(node, "retries", "requeues");
    // What is new since the reading before began at nothing then.
    if (!this.history.length && before !== null) this.history.add(before, { requests: 0, success: 0, failures: 0, retries: 0 });
    this.history.add(now, counts(node, retries));
  }
}

/** A router with its parts. */
export class RouterModel {
  /** @param {string} label */
  constructor(label) {
    this.label = label;
    this.history = new History(ROUTER_READINGS);
    /** @type {Record<"server" | "service" | "client", Map<string, Part>>} */
    this.parts = { server: new Map(), service: new Map(), client: new Map() };
    /** @type {number | null} */
    this.at = null;
    this.grown = { requests: 0, success: 0, failures: 0, retries: 0 };
  }

  /** Take a reading of this router's part of the tree. @param {number} now @param {Node_} node */
  take(now, node) {
    for (const kind of /** @type {const} */ (["server", "service", "client"])) {
      takeAll(this.parts[kind], node[kind] ?? {}, (id) => new Part(this.label, kind, id, false), now, this.at);
    }
    this.takeThrough(now);
    this.sum();
    this.history.add(now, this.grown, this.isBroken());
    this.at = now;
  }

  /** @param {number} now */
  takeThrough(now) {
    for (const client of this.parts.client.values()) {
      takeAll(client.through, client.node.service ?? {}, (id) => new Part(this.label, "service", id, true), now, this.at);
    }
  }

  /** Add what the parts grew by: parts come and go, so that their sums would not only grow. */
  sum() {
    for (const { history } of this.parts.server.values()) {
      const grown = history.last();
      this.grown.requests += grown.requests;
      this.grown.success += grown.success;
      this.grown.failures += grown.failures;
    }
    for (const kind of /** @type {const} */ (["service", "client"])) {
      for (const { history } of this.parts[kind].values()) this.grown.retries += history.last().retries;
    }
  }

  /** Whether the gateway has begun anew since the reading before. */
  isBroken() {
    return [...this.parts.server.values()].some(({ history }) => history.isBreak(history.length - 1));
  }

  get rate() {
    return this.history.rate("requests", RATE_WINDOW);
  }

  get share() {
    return this.history.successShare(SHARE_WINDOW);
  }

  /** Retries per request over the window in which shares are taken. @returns {number | null} */
  get retryShare() {
    const found = this.history.over(SHARE_WINDOW);
    return found && found.requests > 0 ? found.retries / found.requests : null;
  }

  /** Whether a request ever came. */
  get isUsed() {
    return [...this.parts.server.values()].some((server) => server.total > 0);
  }

  /** @param {"server" | "client"} kind @param {string} name */
  sumOf(kind, name) {
    let sum = 0;
    for (const part of this.parts[kind].values()) sum += gauge(part.node, name) ?? 0;
    return sum;
  }

  /**
   * The latency at the servers. Percentiles of several cannot be joined: each figure is that of the worst.
   * @returns {Latency | null}
   */
  get latency() {
    /** @type {Latency | null} */
    let worst = null;
    for (const part of this.parts.server.values()) worst = worse(worst, part.latency);
    return worst;
  }
}

/** @param {Latency | null} one @param {Latency | null} other @returns {Latency | null} */
function worse(one, other) {
  if (!one || !other?.count) return one ?? other;
  if (!one.count) return other;
  /** @type {any} */
  const both = { count: one.count + other.count };
  for (const name of /** @type {const} */ (["p50", "p95", "p99", "p9990", "max"])) both[name] = Math.max(one[name] ?? 0, other[name] ?? 0);
  return both;
}

/**
 * Take the readings of all children of a node, and let go of what is no longer there.
 * @param {Map<string, Part>} parts @param {Node_} node @param {(id: string) => Part} make @param {number} now @param {number | null} before
 */
function takeAll(parts, node, make, now, before) {
  for (const id of parts.keys()) if (!Object.hasOwn(node, id)) parts.delete(id);
  for (const id of Object.keys(node)) {
    let part = parts.get(id);
    if (!part) parts.set(id, (part = make(id)));
    part.take(now, before, node[id]);
  }
}

/** All routers that were read. */
export class Model {
  /** @param {string[]} labels the routers in the order of the configuration */
  constructor(labels) {
    this.routers = new Map(labels.map((label) => [label, new RouterModel(label)]));
    /** @type {Set<string> | null} the routers of the configuration, once it was read */
    this.served = null;
    /** @type {Node_} what is told of the process */
    this.process = {};
  }

  /**
   * Tell which routers there are: counters of one that a reload took away stay in the metrics.
   * @param {Iterable<string>} labels
   */
  serve(labels) {
    this.served = new Set(labels);
    for (const label of this.routers.keys()) if (!this.served.has(label)) this.routers.delete(label);
  }

  /** Take a reading of the whole tree. @param {number} now in milliseconds @param {Node_} tree */
  take(now, tree) {
    this.process = tree.jvm ?? {};
    for (const label of Object.keys(tree.rt ?? {})) if (this.served?.has(label) ?? true) this.takeRouter(now, label, tree.rt[label]);
  }

  /** @param {number} now @param {string} label @param {Node_} node */
  takeRouter(now, label, node) {
    let router = this.routers.get(label);
    if (!router) this.routers.set(label, (router = new RouterModel(label)));
    router.take(now, node);
  }

  /** @param {"server" | "service" | "client"} kind @returns {Part[]} */
  all(kind) {
    return [...this.routers.values()].flatMap((router) => [...router.parts[kind].values()]);
  }
}

/**
 * The share of requests that may be retried by a router's configuration, as `/config.json` has it; null if its services differ.
 * @param {any} router
 */
export function allowedRetries(router) {
  const service = router?.service ?? {};
  if (service.kind === "io.l5d.static") return null;
  return service.retries?.budget?.percentCanRetry ?? 0.2;
}
