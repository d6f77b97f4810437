// Counters over time: the last readings of one thing, its rates and shares. Pure: no document, no clock.

/** The counters that are followed, in the order in which they are kept. */
export const COUNTERS = /** @type {const} */ (["requests", "success", "failures", "retries"]);

const WIDTH = COUNTERS.length + 2; // with the time, and whether the reading is a break
const BREAK = WIDTH - 1;

/** @typedef {{requests: number, success: number, failures: number, retries: number}} Counts */

/**
 * The last `capacity` readings in a ring. What is kept only grows: where a counter falls, as the gateway or one of its workers has begun
 * anew, the reading adds nothing, as nobody can tell how much of it is new.
 */
export class History {
  /** @param {number} capacity */
  constructor(capacity) {
    this.capacity = capacity;
    this.length = 0;
    this.next = 0;
    this.ring = new Float64Array(capacity * WIDTH);
    /** @type {Counts} */
    this.raw = { requests: 0, success: 0, failures: 0, retries: 0 };
  }

  /**
   * Take a reading. Times are milliseconds and must grow.
   * @param {number} time @param {Counts} counts @param {boolean} [isBreak] whether it cannot be compared with the one before
   */
  add(time, counts, isBreak = false) {
    const from = this.length ? this.start(this.length - 1) : -1;
    const to = this.next * WIDTH;
    this.ring[to] = time;
    COUNTERS.forEach((name, index) => {
      const grown = from < 0 ? 0 : Math.max(0, counts[name] - this.raw[name]);
      this.ring[to + 1 + index] = from < 0 ? counts[name] : this.ring[from + 1 + index] + grown;
    });
    this.ring[to + BREAK] = Number(isBreak || (from >= 0 && COUNTERS.some((name) => counts[name] < this.raw[name])));
    this.raw = { ...counts };
    this.next = (this.next + 1) % this.capacity;
    this.length = Math.min(this.length + 1, this.capacity);
  }

  /** Where the reading number `index`, 0 being the oldest, begins in the ring. @param {number} index */
  start(index) {
    return ((this.next - this.length + index + this.capacity) % this.capacity) * WIDTH;
  }

  /** @param {number} index */
  time(index) {
    return this.ring[this.start(index)];
  }

  /** Whether nobody knows what happened between a reading and the one before. @param {number} index */
  isBreak(index) {
    return this.ring[this.start(index) + BREAK] > 0;
  }

  /** How much a counter grew since the reading before; 0 for the oldest. @param {keyof Counts} name @param {number} index */
  grown(name, index) {
    if (index <= 0) return 0;
    const offset = 1 + COUNTERS.indexOf(name);
    return this.ring[this.start(index) + offset] - this.ring[this.start(index - 1) + offset];
  }

  /** How much the counters grew in the last reading. @returns {Counts} */
  last() {
    const grown = COUNTERS.map((name) => [name, this.grown(name, this.length - 1)]);
    return /** @type {Counts} */ (Object.fromEntries(grown));
  }

  /**
   * How much the counters grew within the last `window` milliseconds, and in how many milliseconds; null with less than two readings.
   * @param {number} window
   */
  over(window) {
    if (this.length < 2) return null;
    const newest = this.start(this.length - 1);
    let index = this.length - 2;
    while (index > 0 && this.ring[newest] - this.time(index) < window) index -= 1;
    const oldest = this.start(index);
    const [requests, success, failures, retries] = COUNTERS.map((_, at) => this.ring[newest + 1 + at] - this.ring[oldest + 1 + at]);
    return { requests, success, failures, retries, took: this.ring[newest] - this.ring[oldest] };
  }

  /** Events of a counter per second over a window. @param {keyof Counts} name @param {number} window @returns {number | null} */
  rate(name, window) {
    const found = this.over(window);
    return found && found.took > 0 ? (found[name] / found.took) * 1000 : null;
  }

  /** The share of successes over a window; null if nothing ended in it. @param {number} window @returns {number | null} */
  successShare(window) {
    const found = this.over(window);
    return found && found.success + found.failures > 0 ? found.success / (found.success + found.failures) : null;
  }

  /** The rates from reading to reading, for a chart. @param {keyof Counts} name @returns {{time: number, value: number | null}[]} */
  rates(name) {
    const points = [];
    for (let index = 1; index < this.length; index += 1) {
      const took = this.time(index) - this.time(index - 1);
      points.push({ time: this.time(index), value: took > 0 && !this.isBreak(index) ? (this.grown(name, index) / took) * 1000 : null });
    }
    return points;
  }

  /** The shares of successes from reading to reading, null where nothing ended. @returns {{time: number, value: number | null}[]} */
  shares() {
    const points = [];
    for (let index = 1; index < this.length; index += 1) {
      const success = this.grown("success", index);
      const ended = success + this.grown("failures", index);
      points.push({ time: this.time(index), value: ended > 0 ? success / ended : null });
    }
    return points;
  }
}
