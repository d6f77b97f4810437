// @ts-check
/**
 * The address of the playground: `/delegator?router=<label>#<path>`, and behind the path what is tried out: `&dtab=<text>`.
 *
 * A trial dtab stays in the fragment: it may be long, and the server need not see it to serve the page. No label of a path holds `&`.
 */

/** @typedef {{router: string | null, path: string, trial: string | null}} Place */

/**
 * @param {{search: string, hash: string}} location
 * @returns {Place}
 */
export function readPlace({ search, hash }) {
  const [path, ...rest] = hash.replace(/^#/, "").split("&");
  const trial = rest.find((part) => part.startsWith("dtab="));
  return {
    router: new URLSearchParams(search).get("router"),
    path: decoded(path),
    trial: trial === undefined ? null : decoded(trial.slice("dtab=".length)),
  };
}

/** @param {string} text */
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // written by hand: a bare % is a character of labels
  }
}

/**
 * @param {Place} place
 * @returns {string} relative to the server's root
 */
export function placeUrl({ router, path, trial }) {
  const query = router === null ? "" : `?${new URLSearchParams({ router })}`;
  // paths are to be readable: only what would mislead is escaped
  const shown = path.replace(/[%&\s"<>`]/g, encodeURIComponent);
  const tried = trial === null ? "" : `&dtab=${encodeURIComponent(trial)}`;
  return `/delegator${query}${shown || tried ? "#" : ""}${shown}${tried}`;
}

/**
 * Names worth trying: those that namers know, by the entries that lead to them, then the entries' own prefixes.
 * @param {{prefix: string, dst: string}[]} entries
 * @param {string[]} known names as /bound-names.json has them
 * @param {number} most
 * @returns {string[]}
 */
export function suggestions(entries, known, most) {
  /** @type {Set<string>} */
  const found = new Set();
  const plain = entries.filter(({ prefix }) => !prefix.includes("*"));
  for (const { prefix, dst } of plain) {
    for (const name of known) {
      if (name.startsWith(`${dst}/`)) {
        found.add(prefix + name.slice(dst.length));
      }
    }
  }
  for (const { prefix } of plain) {
    // a one-label prefix such as /svc is seldom a whole name
    if (prefix.lastIndexOf("/") > 0 && !prefix.startsWith("/#/") && !prefix.startsWith("/$/")) {
      found.add(prefix);
    }
  }
  return [...found].slice(0, most);
}

/**
 * Those of many names that have a text in them, the ones that begin with it first.
 * @param {string[]} names
 * @param {string} text
 * @param {number} most
 * @returns {string[]}
 */
export function containing(names, text, most) {
  const begun = names.filter((name) => name.startsWith(text));
  const others = begun.length < most ? names.filter((name) => !name.startsWith(text) && name.includes(text)) : [];
  return [...begun, ...others].slice(0, most);
}
