// @ts-check
/**
 * The address of a view: `#/`, `#/?q=text` and `#/run/<id>?first=&last=&span=&step=&attempt=`. Pure.
 *
 * A view without first, last and span follows the whole run; `span` follows the last steps; first and last stand still.
 */

/** @typedef {{mode: "all"} | {mode: "span", span: number} | {mode: "range", first: number, last: number}} View */
/** @typedef {{name: "list", query: string}} ListRoute */
/** @typedef {{name: "run", run: string, view: View, step: number | null, attempt: number | null}} RunRoute */
/** @typedef {ListRoute | RunRoute} Route */

/** @param {string} hash @returns {Route} */
export function parseRoute(hash) {
  const [path, search = ""] = hash.replace(/^#/, "").split("?", 2);
  const parameters = new URLSearchParams(search);
  const match = /^\/run\/([^/]+)$/.exec(path);
  if (!match) return { name: "list", query: parameters.get("q") ?? "" };
  return {
    name: "run",
    run: decode(match[1]),
    view: parseView(parameters),
    step: count(parameters.get("step")),
    attempt: count(parameters.get("attempt")),
  };
}

/** @param {URLSearchParams} parameters @returns {View} */
function parseView(parameters) {
  const first = count(parameters.get("first"));
  const last = count(parameters.get("last"));
  if (first !== null && last !== null && first <= last) return { mode: "range", first, last };
  const span = count(parameters.get("span"));
  return span ? { mode: "span", span } : { mode: "all" };
}

/** @param {Route} route */
export function formatRoute(route) {
  const parameters = new URLSearchParams();
  if (route.name === "list") {
    if (route.query) parameters.set("q", route.query);
    return `#/${suffix(parameters)}`;
  }
  if (route.view.mode === "range") {
    parameters.set("first", String(route.view.first));
    parameters.set("last", String(route.view.last));
  } else if (route.view.mode === "span") parameters.set("span", String(route.view.span));
  if (route.step !== null) parameters.set("step", String(route.step));
  if (route.attempt !== null) parameters.set("attempt", String(route.attempt));
  return `#/run/${encodeURIComponent(route.run)}${suffix(parameters)}`;
}

/**
 * The address of a run, or of one attempt of it, following all its steps.
 * @param {string} run @param {number | null} [attempt]
 */
export const runAddressOf = (run, attempt = null) =>
  formatRoute({ name: "run", run, view: { mode: "all" }, step: null, attempt });

/** @param {URLSearchParams} parameters */
const suffix = (parameters) => (parameters.size ? `?${parameters}` : "");

/** @param {string | null} text */
const count = (text) => (text !== null && /^\d{1,15}$/.test(text) ? Number(text) : null);

/** @param {string} text */
function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
