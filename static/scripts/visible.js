// @ts-check
/** Which steps the charts show. Pure. */

/** @typedef {import("./state.js").State} State */

/**
 * The steps [first, last] the charts show now, or null while nothing is known.
 * @param {State} state @returns {[number, number] | null}
 */
export function visibleRange(state) {
  if (state.panning) return state.panning;
  if (state.route.name !== "run") return null;
  const { view } = state.route;
  if (view.mode === "range") return [view.first, view.last];
  const { first, last } = state.view.table;
  if (!first.length) return null;
  const end = last[last.length - 1];
  if (view.mode === "span") return [Math.max(0, end - view.span + 1), end];
  return [first[0], state.run?.state === "running" ? first[0] + roomy(end - first[0]) : end];
}

/**
 * A little more than `steps`, the same for many steps: axes that grow with every step would never hold still.
 * @param {number} steps
 */
function roomy(steps) {
  const stride = 2 ** Math.max(0, Math.floor(Math.log2(Math.max(1, steps))) - 4);
  return Math.ceil((steps + 1) / stride) * stride;
}

/**
 * The step under the crosshair, where it lies in view.
 * @param {State} state
 */
export function cursorInView(state) {
  const range = visibleRange(state);
  return range && state.cursor !== null && state.cursor >= range[0] && state.cursor <= range[1] ? state.cursor : null;
}
