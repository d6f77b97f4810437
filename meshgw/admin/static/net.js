// Asking the gateway: one request with a time limit, and the same one again and again.

/** What went wrong; `status` is 0 when there was no answer at all. */
export class ApiError extends Error {
  /** @param {number} status @param {string} message */
  constructor(status, message) {
    super(message);
    this.name = "ApiError";
    this.status = status;
  }
}

/**
 * Ask for JSON.
 *
 * @param {string} path
 * @param {{method?: string, params?: Record<string, string | number | boolean | null | undefined>, body?: unknown, signal?: AbortSignal, timeout?: number}} [options]
 *   `params` go into the address; `body` is sent as JSON, or as a form if it is a URLSearchParams; `timeout` is in milliseconds
 * @returns {Promise<any>} the parsed JSON; the text where the answer is none
 * @throws {ApiError} also for no answer in time and no connection
 */
export async function api(path, { method, params, body, signal, timeout = 10_000 } = {}) {
  const limit = AbortSignal.timeout(timeout);
  const either = signal ? AbortSignal.any([signal, limit]) : limit;
  try {
    const answer = await fetch(withParams(path, params), { ...sending(method, body), signal: either });
    const text = await answer.text();
    if (!answer.ok) throw new ApiError(answer.status, said(answer.status, text));
    return answer.headers.get("content-type")?.startsWith("application/json") ? JSON.parse(text) : text;
  } catch (error) {
    if (error instanceof ApiError) throw error;
    if (limit.aborted) throw new ApiError(0, `No answer within ${timeout / 1000} seconds`);
    if (signal?.aborted) throw error; // the caller knows
    if (error instanceof SyntaxError) throw new ApiError(0, "The answer is not JSON; is this still the gateway?");
    throw new ApiError(0, "The gateway cannot be reached");
  }
}

/** @param {string} path @param {Record<string, any>} [params] */
function withParams(path, params) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(params ?? {})) if (value !== null && value !== undefined) query.set(name, String(value));
  const text = query.toString();
  return text ? `${path}${path.includes("?") ? "&" : "?"}${text}` : path;
}

/** @param {string | undefined} method @param {unknown} body @returns {RequestInit} */
function sending(method, body) {
  const headers = { Accept: "application/json" };
  if (body === undefined) return { method: method ?? "GET", headers };
  if (body instanceof URLSearchParams) return { method: method ?? "POST", headers, body };
  return { method: method ?? "POST", headers: { ...headers, "Content-Type": "application/json" }, body: JSON.stringify(body) };
}

/** @param {number} status @param {string} text */
function said(status, text) {
  const trimmed = text.trim();
  try {
    const { error } = JSON.parse(trimmed);
    if (typeof error === "string") return error;
  } catch {
    // plain text, as most of the gateway's errors are
  }
  return (trimmed.startsWith("<") ? "" : trimmed.slice(0, 2000)) || explained(status);
}

/** @param {number} status */
function explained(status) {
  if (status === 401) return "A token is required";
  if (status === 403) return "This is not allowed with the token that is used";
  if (status === 404) return "There is no such page; its category may be switched off in admin.security";
  return `The gateway answered ${status}`;
}

/**
 * @typedef {object} Freshness
 * @property {number | null} at when the last good answer came, by performance.now(); null before the first
 * @property {ApiError | null} error why the last try failed
 * @property {boolean} paused whether asking is stopped, by the tab being hidden or by the page
 */

const SHARE = 5; // of the time, a fifth at most is spent asking: large answers are asked for more rarely
const MOST_PAUSE = 30_000;

/**
 * Call `fn` now and every `every` milliseconds. It never overlaps itself, rests while the tab is hidden, and waits longer after errors.
 *
 * @param {(signal: AbortSignal) => Promise<unknown>} fn
 * @param {{every: number, onFreshness?: (freshness: Freshness) => void}} options
 */
export function poll(fn, { every, onFreshness = () => {} }) {
  return new Poll(fn, every, onFreshness).begin();
}

class Poll {
  /** @param {(signal: AbortSignal) => Promise<unknown>} fn @param {number} every @param {(freshness: Freshness) => void} report */
  constructor(fn, every, report) {
    this.fn = fn;
    this.every = every;
    this.report = report;
    /** @type {Freshness} */
    this.freshness = { at: null, error: null, paused: false };
    this.failures = 0;
    this.isRunning = false;
    this.isStopped = false;
    this.isHeld = false;
    this.timer = 0;
    this.abort = new AbortController();
    this.onVisibility = () => this.changed();
  }

  begin() {
    document.addEventListener("visibilitychange", this.onVisibility);
    this.changed();
    return this;
  }

  /** Stop for good. */
  stop() {
    this.isStopped = true;
    this.abort.abort();
    clearTimeout(this.timer);
    document.removeEventListener("visibilitychange", this.onVisibility);
  }

  /** Stop until {@link resume}. */
  pause() {
    this.isHeld = true;
    this.changed();
  }

  /** Go on after {@link pause}. */
  resume() {
    this.isHeld = false;
    this.changed();
  }

  /** Ask at once. */
  now() {
    if (this.isStopped || this.isRunning) return;
    clearTimeout(this.timer);
    void this.run();
  }

  changed() {
    this.tell({ paused: this.isHeld || document.hidden });
    if (this.freshness.paused) clearTimeout(this.timer);
    else this.now();
  }

  async run() {
    this.isRunning = true;
    const started = performance.now();
    try {
      await this.fn(this.abort.signal);
      this.failures = 0;
      this.tell({ at: performance.now(), error: null });
    } catch (error) {
      if (this.isStopped) return;
      this.failures += 1;
      if (!(error instanceof ApiError)) console.error(error);
      this.tell({ error: error instanceof ApiError ? error : new ApiError(0, String(error)) });
    } finally {
      this.isRunning = false;
      if (!this.isStopped && !this.freshness.paused) this.timer = setTimeout(() => this.now(), this.delay(performance.now() - started));
    }
  }

  /** @param {number} took */
  delay(took) {
    const apart = this.failures ? this.every * 2 ** Math.min(this.failures - 1, 5) : Math.max(this.every, took * SHARE);
    return Math.max(0, Math.min(apart, Math.max(MOST_PAUSE, this.every)) - took);
  }

  /** @param {Partial<Freshness>} change */
  tell(change) {
    this.freshness = { ...this.freshness, ...change };
    this.report(this.freshness);
  }
}
