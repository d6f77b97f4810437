// @ts-check
/** The rows of /requests.json as data: filters, how long things took, and in which words. */

/**
 * @typedef {{timestamp: string, source: string, server: string, router: string, logical_name: string, concrete_name: string,
 *   destination: string, method: string, path: string, status: number | null, duration_ms: number, retries: number,
 *   trace_id: string, failed: boolean, error: string | null}} Row
 */

/** The parameters of the page's address that are passed on to the gateway. */
export const FILTERS = ["router", "service", "client", "status", "failed", "text"];

/**
 * A row's identity, to find it again among newer ones.
 * @param {Row} row
 * @returns {string}
 */
export function keyOf(row) {
  return `${row.timestamp} ${row.trace_id} ${row.source}`;
}

/**
 * Milliseconds as people read them.
 * @param {number} milliseconds
 * @returns {string}
 */
export function duration(milliseconds) {
  if (milliseconds < 10) return `${milliseconds.toFixed(1)} ms`;
  return milliseconds < 1000 ? `${Math.round(milliseconds)} ms` : `${(milliseconds / 1000).toFixed(milliseconds < 10_000 ? 2 : 1)} s`;
}

/**
 * The time of day, in the reader's own zone.
 * @param {string} timestamp
 * @returns {string}
 */
export function clock(timestamp) {
  const date = new Date(timestamp);
  if (Number.isNaN(date.getTime())) return timestamp;
  const two = (/** @type {number} */ value) => String(value).padStart(2, "0");
  const parts = [date.getHours(), date.getMinutes(), date.getSeconds()].map(two);
  return `${parts.join(":")}.${String(date.getMilliseconds()).padStart(3, "0")}`;
}

/**
 * How a row ended: its class of colour, and what is shown of it.
 * @param {Row} row
 * @returns {{kind: "good" | "warn" | "bad", text: string}}
 */
export function outcome(row) {
  const text = row.status === null ? "no answer" : String(row.status);
  if (row.failed || row.status === null) return { kind: "bad", text };
  return { kind: row.status >= 400 ? "warn" : "good", text };
}
