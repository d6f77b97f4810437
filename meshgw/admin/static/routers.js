// @ts-check
/** The routers of this gateway with their dtabs, and the names that were looked at in this browser. */

import { api } from "./net.js";

/**
 * @typedef {{label: string, dtab: string, kind: string, interpreterDtab: string | null, problem: string}} Router
 *   `kind` is its interpreter's, `interpreterDtab` the dtab that one adds to the router's, as far as it tells, and `problem` why that
 *   may be outdated
 */

const RECENT = "meshgw.names";
const MOST_RECENT = 8;

/** @returns {Promise<Router[]>} */
export async function known() {
  const config = await api("/config.json");
  /** @type {Router[]} */
  const routers = (config.routers ?? []).map((/** @type {any} */ router) => ({
    label: router.label ?? router.protocol,
    dtab: router.dtab ?? "",
    kind: kindOf(router.interpreter),
    interpreterDtab: null,
    problem: "",
  }));
  const special = routers.filter(({ kind }) => kind !== "default");
  if (special.length > 0) {
    const paths = new Set(await described());
    await Promise.all(special.map((router) => readInterpreter(router, paths)));
  }
  return routers;
}

/** @param {any} interpreter one, or a list of them @returns {string} */
function kindOf(interpreter) {
  const first = Array.isArray(interpreter) ? interpreter[0] : interpreter;
  return first?.kind ?? "default";
}

/** The paths that the gateway serves; without them there is less to show. @returns {Promise<string[]>} */
async function described() {
  try {
    return String(await api("/admin/index.txt")).split("\n");
  } catch {
    return [];
  }
}

/** @param {Router} router @param {Set<string>} paths */
async function readInterpreter(router, paths) {
  const path = `/${router.label}/interpreter_state/${router.kind}.json`;
  if (!paths.has(path)) return;
  try {
    const { state, poll } = await api(path.split("/").map(encodeURIComponent).join("/"));
    router.interpreterDtab = typeof state?.value === "string" ? state.value : null;
    router.problem = typeof poll?.error === "string" ? poll.error : "";
  } catch {
    // it may have gone in the meantime
  }
}

/** The names that were resolved lately, the latest first. @returns {string[]} */
export function recall() {
  try {
    const names = JSON.parse(localStorage.getItem(RECENT) ?? "[]");
    return Array.isArray(names) ? names.filter((name) => typeof name === "string").slice(0, MOST_RECENT) : [];
  } catch {
    return [];
  }
}

/** @param {string} name */
export function remember(name) {
  try {
    const names = [name, ...recall().filter((other) => other !== name)].slice(0, MOST_RECENT);
    localStorage.setItem(RECENT, JSON.stringify(names));
  } catch {
    // storage may be forbidden: then nothing is remembered
  }
}
