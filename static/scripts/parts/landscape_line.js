// @ts-check
/** The loss along one update: of the probe under the crosshair, else the newest with all its points. */

import { airy, finiteExtent } from "../axes.js";
import { lineCaption, lossWords } from "../captions.js";
import { formatCount } from "../format.js";
import { criticalOf } from "../tape.js";
import { dotsTrace, labelTrace, lineTrace } from "../traces.js";
import { chosenColumn, criticalWords } from "./landscape_tape.js";

/** @typedef {import("../state.js").State} State */
/**
 * @typedef {{step: number, alpha: number[], loss: (number | null)[], probe: import("../landscape.js").Probe | null}}
 * Curve
 */

const HIGHEST = 4; // alpha up to which points are drawn; the search for the critical step goes far beyond

/** @param {State} state @returns {Curve | null} */
export function curveOf(state) {
  const { data } = state.landscape;
  const probe = chosenColumn(state)?.probe ?? null;
  const line = data?.line ?? null;
  if (data && probe && (!line || line.probe !== probe.probe))
    return { step: probe.step, alpha: data.tape.alpha, loss: probe.loss, probe };
  return line && { ...line, probe };
}

/** @returns {import("./figure.js").FigureSpec} */
export const lineFigure = () => ({
  id: "line",
  title: "Along the update",
  hint: "Loss over alpha along one update",
  margin: { left: 58, right: 14, top: 8, bottom: 36 },
  inputs: (state) => [state.landscape.data, chosenColumn(state)],
  draw(state, _, theme) {
    const curve = curveOf(state);
    if (!curve) return null;
    const highest = reachOf(curve);
    const order = curve.alpha.map((_, at) => at).filter((at) => curve.alpha[at] <= highest);
    order.sort((a, b) => curve.alpha[a] - curve.alpha[b]);
    const x = order.map((at) => curve.alpha[at]);
    const y = order.map((at) => finiteOr(curve.loss[at]));
    const range = airy(finiteExtent(y), false);
    return {
      traces: curveTraces(curve, { x, y }, range, theme),
      x: { range: [-0.6, highest + 0.1], ...ALPHAS },
      y: { range, format: "~g", title: "held-out loss" },
      marks: { x, y: y.map((value) => value ?? NaN), words: (at) => `α ${x[at]}: ${lossWords(curve.loss[order[at]])}` },
    };
  },
  caption(state) {
    const { data } = state.landscape;
    const curve = curveOf(state);
    if (!data || !curve) return "";
    const critical = curve.probe ? `critical α ${criticalWords(curve.probe)}` : "";
    return [`Probe at step ${formatCount(curve.step)}`, critical, lineCaption(data)].filter(Boolean).join(" · ");
  },
});

const ALPHAS = {
  values: [0, 1, 2, 3, 4],
  labels: ["0", "1", "2", "3", "4"],
  title: "α (0 before the step, 1 the step taken)",
};

/**
 * The alpha up to which the curve tells of the step and the critical one: beyond, it only towers.
 * @param {Curve} curve
 */
function reachOf({ probe }) {
  const { alpha, bracket } = probe ? criticalOf(probe) : { alpha: NaN, bracket: "unknown" };
  return bracket === "at" || bracket === "at once" ? Math.min(HIGHEST, Math.max(2, Math.ceil(3 * alpha) / 2)) : HIGHEST;
}

/** @param {number | null} value */
const finiteOr = (value) => (value !== null && Number.isFinite(value) ? value : null);

/**
 * @param {Curve} curve @param {{x: number[], y: (number | null)[]}} points @param {[number, number]} range
 * @param {import("../theme.js").Colours} theme
 */
function curveTraces({ probe }, points, range, { loss, text, line, surface, change }) {
  const upright = (/** @type {number} */ alpha) => ({ x: [alpha, alpha], y: range });
  const { alpha: critical, bracket } = probe ? criticalOf(probe) : { alpha: NaN, bracket: "unknown" };
  const base = points.y[points.x.indexOf(0)] ?? null;
  const best = points.x.indexOf(probe?.best_alpha ?? NaN);
  const known = (bracket === "at" || bracket === "at once") && critical <= HIGHEST;
  const top = range[1] - 0.04 * (range[1] - range[0]);
  const sides = critical < 1 ? ["middle left", "middle right"] : ["middle right", "middle left"];
  return [
    ...(base === null
      ? []
      : [lineTrace({ x: [-0.6, 5], y: [base, base] }, { colour: line, width: 1, dash: "2px,3px" })]),
    lineTrace(upright(1), { colour: text, width: 1, dash: "4px,3px" }),
    labelTrace([{ x: 1, y: top, text: "taken", at: known ? sides[1] : "middle right" }], text),
    ...(known ? [lineTrace(upright(critical), { colour: change[4], width: 1.75 })] : []),
    ...(known ? [labelTrace([{ x: critical, y: top, text: "critical", at: sides[0] }], change[4])] : []),
    lineTrace(points, { colour: loss, width: 2 }),
    dotsTrace(points, { colour: loss, size: 5, rim: surface }),
    ...(best < 0
      ? []
      : [dotsTrace({ x: [points.x[best]], y: [points.y[best]] }, { colour: surface, size: 9, rim: text })]),
  ];
}
