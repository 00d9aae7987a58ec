// @ts-check
/** The total norm before clipping, on a log axis, with the threshold and a rug of the clip events. */

import { airy, logTicks } from "../axes.js";
import { limitsTotalNorm } from "../clip.js";
import { formatValue } from "../format.js";
import { extent, line } from "../lines.js";
import { faded } from "../theme.js";
import { lineTrace } from "../traces.js";
import { drawNonfinite, seriesReadings, seriesTraces } from "./loss.js";
import { drawRestarts } from "./panel.js";

/** @typedef {import("./panel.js").Scene} Scene */

/**
 * The threshold's series, where it stands on the same scale as the total norm.
 * @param {import("../state.js").State} state
 */
const thresholdOf = ({ view, run }) => (limitsTotalNorm(run?.clip) ? view.table.series.get("threshold") : undefined);

/** @returns {import("./panel.js").PanelSpec} */
export const normPanel = () => ({
  id: "norm",
  title: "Total norm",
  hint: "Total gradient norm before clipping, log axis, with the clipping threshold",
  traces(scene) {
    const threshold = thresholdOf(scene.state);
    const dashed = threshold
      ? [
          lineTrace(line(scene.table, threshold.mean, scene.span), {
            colour: scene.colours.threshold,
            width: 1.5,
            dash: "5px,4px",
            steps: true,
          }),
        ]
      : [];
    return [...seriesTraces(scene, "total_norm", scene.colours.norm, true), ...dashed];
  },
  axis: ({ state, table, span }) => {
    const norms = extent(table.series.get("total_norm"), span, 0);
    const threshold = extent(thresholdOf(state), span, 0);
    const both = /** @type {[number, number][]} */ ([norms, threshold].filter(Boolean));
    const range = airy(
      both.length ? [Math.min(...both.map(([low]) => low)), Math.max(...both.map(([, high]) => high))] : null,
      true,
    );
    return { range, type: "log", format: "~g", ...logTicks(range) };
  },
  paint(pen, scene, x) {
    drawRestarts(pen, scene, x);
    drawRug(pen, scene, x, scene.area.top + scene.area.height - 7, 7);
    drawNonfinite(pen, scene, x, "total_norm");
  },
  readout: (state, at) => {
    const { table } = state.view;
    const threshold = thresholdOf(state);
    const coefficient = table.series.get("clip_coefficient");
    return [
      ...seriesReadings(table, "total_norm", at),
      ...(threshold?.count[at]
        ? [{ label: "threshold", value: formatValue(threshold.mean[at]), tone: "threshold" }]
        : []),
      ...(coefficient?.count[at] ? [{ label: "coefficient", value: `× ${formatValue(coefficient.mean[at], 3)}` }] : []),
    ];
  },
});

/**
 * One tick per column with clipped steps; the more of them, the stronger.
 * @param {CanvasRenderingContext2D} pen @param {Scene} scene @param {(step: number) => number} x @param {number} top
 * @param {number} height
 */
export function drawRug(pen, { table, span, colours }, x, top, height) {
  const clipped = table.series.get("clipped");
  for (let at = span.from; clipped && at < span.to; at++) {
    if (!clipped.count[at] || !(clipped.max[at] > 0)) continue;
    const left = Math.round(x(table.first[at] - 0.5));
    const width = Math.max(1, Math.round(x(table.first[at] + table.width - 0.5)) - left);
    pen.fillStyle = faded(colours.clip, 0.35 + 0.65 * clipped.mean[at]);
    pen.fillRect(width > 6 ? left + width / 2 - 1.5 : left, top, width > 6 ? 3 : width, height);
  }
}
