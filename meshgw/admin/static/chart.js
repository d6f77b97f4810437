// Small charts of our own: SVG, so that they are crisp on every screen and take the page's colours.

import { el, fill, setText } from "./dom.js";
import { axisEnd } from "./figures.js";

const SVG = "http://www.w3.org/2000/svg";
const LEAST_SPAN = 60_000; // milliseconds
const WIDTH = 1000; // units of the drawing, which is stretched to its place; strokes keep their width

/** @typedef {{time: number, value: number | null}} Point */
/** @typedef {{name: string, style: "line-1" | "line-2" | "line-good"}} Series */

/** @param {string} tag @param {Record<string, string | number>} attributes */
function svg(tag, attributes) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  return element;
}

/**
 * The path of a line; it is broken where there is no value.
 * @param {Point[]} points @param {(time: number) => number} x @param {(value: number) => number} y
 */
export function linePath(points, x, y) {
  let path = "";
  let isDown = false;
  for (const { time, value } of points) {
    if (value === null) {
      isDown = false;
      continue;
    }
    path += `${isDown ? "L" : "M"}${x(time).toFixed(1)} ${y(value).toFixed(1)}`;
    isDown = true;
  }
  return path;
}

/** A line chart over the last minutes: what happened now is at the right edge. */
export class Chart {
  /**
   * @param {object} options
   * @param {string} options.label what it shows, for those who do not see it
   * @param {Series[]} options.series
   * @param {(value: number | null) => string} options.format how values are written
   * @param {number} options.span how far it looks back at most, in milliseconds; less while there is less to show
   * @param {number} [options.end] where the vertical axis ends; by default it follows the values
   * @param {number[]} [options.starts] where it may begin, falling: the first that all values reach is taken; 0 by default
   * @param {number} [options.height] in pixels
   */
  constructor({ label, series, format, span, end, starts = [0], height = 96 }) {
    Object.assign(this, { label, series, format });
    this.most = span;
    this.span = Math.min(span, LEAST_SPAN);
    this.fixedEnd = end;
    this.starts = starts;
    this.low = 0;
    this.high = end ?? 1;
    this.height = height;
    this.now = 0;
    /** @type {Point[][]} */
    this.points = series.map(() => []);
    this.lines = series.map(({ style }) => svg("path", { class: `chart-line ${style}` }));
    this.area = svg("path", { class: "chart-area" });
    this.cross = svg("line", { class: "chart-cross", y1: 0, y2: height, x1: 0, x2: 0, visibility: "hidden" });
    this.drawing = svg("svg", { viewBox: `0 0 ${WIDTH} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" });
    const grid = [0, 0.5, 1].map((at) => svg("line", { class: "chart-grid", x1: 0, x2: WIDTH, y1: this.y0(at), y2: this.y0(at) }));
    this.drawing.append(...grid, this.area, ...this.lines.toReversed(), this.cross);
    this.top = el("span", { class: "chart-top" });
    this.bottom = el("span", { class: "chart-top chart-bottom" });
    this.values = series.map(() => el("span", { class: "chart-value number" }));
    this.when = el("span", { class: "chart-when" });
    this.plot = el("div", { class: "chart-plot", role: "img", style: { height: `${height}px` } }, this.drawing, this.top, this.bottom);
    this.element = el("figure", { class: "chart" }, this.legend(), this.plot, this.axis());
    this.watchPointer();
  }

  legend() {
    const items = this.series.map(({ name, style }, index) =>
      el("span", { class: "chart-item" }, el("span", { class: `chart-key ${style}`, "aria-hidden": "true" }), this.values[index], ` ${name}`),
    );
    return el("figcaption", { class: "chart-legend" }, items, this.when);
  }

  axis() {
    this.begin = el("span", null);
    return el("div", { class: "chart-axis", "aria-hidden": "true" }, this.begin, el("span", null, "now"));
  }

  /** @param {number} share of the height, from below */
  y0(share) {
    return (this.height - 2) * (1 - share) + 1;
  }

  /** Draw. @param {Point[][]} points for each series @param {number} now */
  update(points, now) {
    this.points = points;
    this.now = now;
    const oldest = Math.max(0, ...points.map((one) => (one.length ? now - one[0].time : 0)));
    this.span = Math.min(this.most, Math.max(LEAST_SPAN, oldest));
    setText(this.begin, `${this.spanText()} ago`);
    this.scale(points.flatMap((one) => one.flatMap(({ time, value }) => (value !== null && time >= now - this.span ? [value] : []))));
    const x = (/** @type {number} */ time) => WIDTH * (1 - (now - time) / this.span);
    const y = (/** @type {number} */ value) => this.y0((Math.max(this.low, Math.min(value, this.high)) - this.low) / (this.high - this.low));
    const lines = points.map((one) => linePath(one, x, y));
    lines.forEach((path, index) => this.lines[index].setAttribute("d", path));
    this.area.setAttribute("d", this.areaPath(points[0], lines[0], x));
    setText(this.top, this.format(this.high));
    if (!this.isPointed) this.showValues(null);
    this.plot.setAttribute("aria-label", this.told());
  }

  /** Choose where the vertical axis begins and ends. @param {number[]} values */
  scale(values) {
    if (this.fixedEnd === undefined) this.high = axisEnd(Math.max(0, ...values));
    const least = Math.min(this.high, ...values);
    this.low = this.starts.find((start) => start < least) ?? 0;
    setText(this.bottom, this.low > 0 ? this.format(this.low) : "");
  }

  /** @param {Point[]} points @param {string} line @param {(time: number) => number} x */
  areaPath(points, line, x) {
    const known = points.filter(({ value }) => value !== null);
    if (known.length < 2 || known.length < points.length) return ""; // a broken line has no single area
    return `${line}L${x(known[known.length - 1].time).toFixed(1)} ${this.height}L${x(known[0].time).toFixed(1)} ${this.height}Z`;
  }

  told() {
    const told = this.series.map(({ name }, index) => {
      const values = this.points[index].flatMap(({ value }) => (value === null ? [] : [value]));
      if (!values.length) return `${name}: nothing yet`;
      return `${name}: now ${this.format(values[values.length - 1])}, least ${this.format(Math.min(...values))}, most ${this.format(Math.max(...values))}`;
    });
    return `${this.label}, last ${this.spanText()}. ${told.join("; ")}`;
  }

  spanText() {
    return this.span < 120_000 ? `${Math.round(this.span / 1000)} s` : `${Math.round(this.span / 60_000)} min`;
  }

  /** Write the values at a time, or the newest ones. @param {number | null} time */
  showValues(time) {
    this.points.forEach((points, index) => {
      const point = time === null ? points[points.length - 1] : nearest(points, time);
      setText(this.values[index], this.format(point?.value ?? null));
    });
    setText(this.when, time === null ? "" : `${Math.round((this.now - time) / 1000)} s ago`);
  }

  watchPointer() {
    this.isPointed = false;
    this.plot.addEventListener("pointermove", (event) => {
      const place = this.plot.getBoundingClientRect();
      const share = (event.clientX - place.left) / place.width;
      const point = nearest(this.points[0], this.now - this.span * (1 - share));
      if (!point) return;
      this.isPointed = true;
      const x = String(WIDTH * (1 - (this.now - point.time) / this.span));
      for (const name of ["x1", "x2"]) this.cross.setAttribute(name, x);
      this.cross.setAttribute("visibility", "visible");
      this.showValues(point.time);
    });
    this.plot.addEventListener("pointerleave", () => {
      this.isPointed = false;
      this.cross.setAttribute("visibility", "hidden");
      this.showValues(null);
    });
  }
}

/** @param {Point[]} points @param {number} time @returns {Point | undefined} */
function nearest(points, time) {
  let found = points[0];
  for (const point of points) if (Math.abs(point.time - time) < Math.abs(found.time - time)) found = point;
  return found;
}

/** A line in a table's row: the shape only, its figures stand beside it. */
export class Spark {
  constructor() {
    this.line = svg("path", { class: "chart-line line-1" });
    this.drawing = svg("svg", { viewBox: "0 0 100 24", preserveAspectRatio: "none", class: "spark", "aria-hidden": "true" });
    this.drawing.append(this.line);
    this.element = this.drawing;
  }

  /** @param {Point[]} points @param {number} now @param {number} span */
  update(points, now, span) {
    const most = Math.max(1, ...points.map(({ value }) => value ?? 0));
    this.line.setAttribute("d", linePath(points, (time) => 100 * (1 - (now - time) / span), (value) => 22.5 - 21 * (value / most)));
  }
}

/** A bar of a part in a whole, with what it means beside it. */
export class Bar {
  /** @param {string} label */
  constructor(label) {
    this.inner = el("span", { class: "bar-part" });
    this.track = el("span", { class: "bar-track", role: "img" }, this.inner);
    this.text = el("span", { class: "bar-text number" });
    this.label = label;
    this.element = el("span", { class: "meter" }, this.track, this.text);
  }

  /** @param {number | null} share from 0 to 1 @param {string} text @param {"good" | "warn" | "bad" | "idle"} kind */
  update(share, text, kind) {
    this.inner.style.width = `${Math.max(0, Math.min(1, share ?? 0)) * 100}%`;
    this.inner.className = `bar-part bar-${kind}`;
    this.element.className = `meter meter-${kind}`;
    this.track.setAttribute("aria-label", `${this.label}: ${text}`);
    setText(this.text, text);
  }
}

/** Replace what is in an element unless it is that already. @param {Element} place @param {Element} element */
export function put(place, element) {
  if (place.firstElementChild !== element || place.children.length !== 1) fill(place, element);
}
