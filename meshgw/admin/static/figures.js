// Figures as people read them. Pure: no document, no clock.

/** What stands where there is no figure. */
export const NONE = "–";

/** @param {number} value @param {number} digits significant ones */
function significant(value, digits) {
  if (value === 0) return "0";
  const decimals = Math.max(0, digits - 1 - Math.floor(Math.log10(Math.abs(value))));
  return value.toFixed(Math.min(decimals, 2));
}

/** A number with three digits and k, M or G: 0.25, 8.1, 240, 1.24k. @param {number | null | undefined} value */
export function short(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return NONE;
  const size = Math.abs(value);
  if (size >= 999.5e6) return `${significant(value / 1e9, 3)}G`;
  if (size >= 999.5e3) return `${significant(value / 1e6, 3)}M`;
  if (size >= 999.5) return `${significant(value / 1e3, 3)}k`;
  if (size >= 100 || Number.isInteger(value)) return String(Math.round(value));
  return size >= 10 ? value.toFixed(1) : size >= 0.005 ? value.toFixed(2) : "0";
}

/** A whole number with its thousands apart. @param {number | null | undefined} value */
export function whole(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return NONE;
  return String(Math.round(value)).replace(/\B(?=(\d{3})+(?!\d))/g, "\u202f");
}

/**
 * A share as a percentage. What is not all is never shown as 100 %, what is not nothing never as 0 %.
 * @param {number | null | undefined} share from 0 to 1
 */
export function percent(share) {
  if (share === null || share === undefined || !Number.isFinite(share)) return NONE;
  if (share >= 1) return "100 %";
  if (share <= 0) return "0 %";
  const value = share * 100;
  if (value > 99.99) return "> 99.99 %";
  if (value < 0.01) return "< 0.01 %";
  if (Math.abs(value - Math.round(value)) < 1e-9) return `${Math.round(value)} %`;
  return `${value >= 99 ? (Math.floor(value * 100) / 100).toFixed(2) : value.toFixed(value >= 10 ? 1 : 2)} %`;
}

/** A time given in milliseconds: 0.35 ms, 12 ms, 1.2 s. @param {number | null | undefined} value */
export function milliseconds(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return NONE;
  if (value >= 59_950) return `${significant(value / 60_000, 2)} min`;
  if (value >= 999.5) return `${significant(value / 1000, 3)} s`;
  return `${value >= 100 ? Math.round(value) : significant(value, value < 1 ? 2 : 3)} ms`;
}

/** How long something has lasted, given in milliseconds: 42 s, 3 min, 5 h 12 min, 12 d 3 h. @param {number | null | undefined} value */
export function duration(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return NONE;
  const seconds = Math.floor(value / 1000);
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  return hours % 24 ? `${Math.floor(hours / 24)} d ${hours % 24} h` : `${hours / 24} d`;
}

/** @param {number | null | undefined} value */
export function bytes(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return NONE;
  for (const [unit, size] of /** @type {[string, number][]} */ ([["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10]])) {
    if (value >= size) return `${significant(value / size, 3)} ${unit}`;
  }
  return `${Math.round(value)} B`;
}

/** The least of 1, 2, 2.5, 5, 10, … that holds a value: where an axis ends. @param {number} value */
export function axisEnd(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  for (const step of [1, 2, 2.5, 5]) if (value <= step * power * (1 + 1e-9)) return step * power;
  return 10 * power;
}

/** @typedef {"good" | "warn" | "bad" | "idle"} Health */

export const GOOD_FROM = 0.99;
export const WARN_FROM = 0.95;

/** What a share of successes means. @param {number | null} share null if nothing was asked @returns {Health} */
export function health(share) {
  if (share === null) return "idle";
  if (share >= GOOD_FROM) return "good";
  return share >= WARN_FROM ? "warn" : "bad";
}

export const HEALTH_WORDS = { good: "Healthy", warn: "Degraded", bad: "Failing", idle: "Idle" };
export const HEALTH_MARKS = { good: "●", warn: "▲", bad: "■", idle: "○" };
