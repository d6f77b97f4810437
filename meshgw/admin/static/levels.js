// @ts-check
/** Loggers and their levels as data: which level comes from where, and what a change would change. */

/**
 * @typedef {{logger: string, level: string}} Logger as /logging.json has them
 * @typedef {{name: string, level: string, depth: number, parent: string | null, isInherited: boolean}} Row
 *   `parent` is the nearest logger above that is listed, null for the root; levels equal to its are taken as inherited
 */

export const ROOT = "root";
export const LEVELS = ["ALL", "TRACE", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", "FATAL", "OFF"];

/**
 * The loggers in the order of a tree: the root, then each below the one that it inherits from.
 * @param {Logger[]} loggers
 * @returns {Row[]}
 */
export function rows(loggers) {
  const levels = new Map(loggers.map(({ logger, level }) => [logger, level]));
  const names = [...levels.keys()].filter((name) => name !== ROOT).sort();
  /** @type {Map<string, Row>} */
  const found = new Map();
  for (const name of levels.has(ROOT) ? [ROOT, ...names] : names) {
    const parent = parentOf(name, levels);
    const level = levels.get(name) ?? "";
    const depth = parent === null || parent === ROOT ? 0 : (found.get(parent)?.depth ?? 0) + 1;
    found.set(name, { name, level, depth, parent, isInherited: parent !== null && levels.get(parent) === level });
  }
  return [...found.values()];
}

/** @param {string} name @param {Map<string, string>} levels @returns {string | null} */
function parentOf(name, levels) {
  if (name === ROOT) return null;
  for (let above = containing(name); above; above = containing(above)) {
    if (levels.has(above)) return above;
  }
  return levels.has(ROOT) ? ROOT : null;
}

/** @param {string} name */
function containing(name) {
  return name.slice(0, Math.max(0, name.lastIndexOf(".")));
}

/**
 * The loggers as they will be once `logger` has `level`: those that inherit from it follow.
 * @param {Logger[]} loggers
 * @param {string} logger
 * @param {string} level
 * @returns {Logger[]}
 */
export function withLevel(loggers, logger, level) {
  const changed = new Set([logger]);
  for (const row of rows(loggers)) {
    if (row.isInherited && row.parent !== null && changed.has(row.parent)) changed.add(row.name);
  }
  return loggers.map((one) => (changed.has(one.logger) ? { ...one, level } : one));
}

/**
 * The rows whose name has `text` in it, or whose level is it.
 * @param {Row[]} all
 * @param {string} text
 * @returns {Row[]}
 */
export function matching(all, text) {
  const wanted = text.trim().toLowerCase();
  return wanted === "" ? all : all.filter(({ name, level }) => name.toLowerCase().includes(wanted) || level.toLowerCase() === wanted);
}
