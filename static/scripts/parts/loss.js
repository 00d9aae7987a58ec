// @ts-check
/** The loss: mean line over a band from min to max, non-finite steps as crosses at the top edge. */

import { airy, logTicks } from "../axes.js";
import { h } from "../dom.js";
import { formatValue } from "../format.js";
import { band, extent, line } from "../lines.js";
import { drawCross, drawRing } from "../marks.js";
import { nonfiniteCount } from "../series.js";
import { faded, recall, remember } from "../theme.js";
import { bandTrace, lineTrace } from "../traces.js";
import { drawRestarts } from "./panel.js";

/** @typedef {import("./panel.js").Scene} Scene */
const KEY = "gradwatch.loss-scale";

/**
 * Line and band of one series.
 * @param {Scene} scene @param {string} name @param {string} colour @param {boolean} log
 */
export function seriesTraces({ table, span, area }, name, colour, log) {
  const stats = table.series.get(name);
  if (!stats) return [];
  const few = span.to - span.from <= area.width / 7;
  const traces = [lineTrace(line(table, stats.mean, span), { colour, markers: table.width === 1 && few })];
  return table.width > 1
    ? [bandTrace(band(table, stats, span, log ? Number.MIN_VALUE : -Infinity), faded(colour, 0.22)), ...traces]
    : traces;
}

/**
 * Mean, min and max of one column, or its one value.
 * @param {import("../series.js").Table} table @param {string} name @param {number} at
 * @returns {import("./panel.js").Reading[]}
 */
export function seriesReadings(table, name, at) {
  const stats = table.series.get(name);
  if (!stats || (!stats.count[at] && !stats.nonfinite[at])) return [];
  const count = nonfiniteCount(table, name, at);
  const scaler = stats.nonfinite[at] - count;
  const bad = [
    ...(count ? [{ label: "non-finite", value: `✕ ${count}`, tone: "bad" }] : []),
    ...(scaler ? [{ label: "scale skip", value: `○ ${scaler}` }] : []),
  ];
  if (stats.count[at] + stats.nonfinite[at] === 1)
    return [{ label: "value", value: formatValue(stats.last[at]), tone: count ? "bad" : "" }];
  if (!stats.count[at]) return bad;
  return [
    { label: "mean", value: formatValue(stats.mean[at]) },
    { label: "max", value: formatValue(stats.max[at]) },
    { label: "min", value: formatValue(stats.min[at]) },
    ...bad,
  ];
}

/**
 * Crosses at the top edge where a series was not finite; rings where only a loss scale was too large.
 * @param {CanvasRenderingContext2D} pen @param {Scene} scene @param {(step: number) => number} x @param {string} name
 */
export function drawNonfinite(pen, { table, span, area, colours }, x, name) {
  const stats = table.series.get(name);
  let last = -Infinity;
  for (let at = span.from; stats && at < span.to; at++) {
    const place = x((table.first[at] + table.last[at]) / 2);
    // after a NaN everything may be NaN: crosses closer than 9 pixels would only smear
    if (!stats.nonfinite[at] || place - last < 9) continue;
    if (nonfiniteCount(table, name, at)) drawCross(pen, place, area.top + 7, colours.nonfinite);
    else drawRing(pen, place, area.top + 7, colours.skip);
    last = place;
  }
}

/** @returns {import("./panel.js").PanelSpec & {controls: Node[], watch: (redraw: () => void) => void}} */
export function lossPanel() {
  let log = recall(KEY) === "log";
  let redraw = () => {};
  const button = h(
    "button",
    { className: "quiet small", "aria-pressed": String(log), title: "Draw the loss on a log axis", onClick: toggle },
    "log",
  );
  function toggle() {
    log = !log;
    remember(KEY, log ? "log" : "linear");
    button.setAttribute("aria-pressed", String(log));
    redraw();
  }
  return {
    id: "loss",
    title: "Loss",
    hint: "Loss over the steps: mean, with a band from the lowest to the highest value",
    controls: [button],
    watch: (callback) => (redraw = callback),
    traces: (scene) => seriesTraces(scene, "loss", scene.colours.loss, log),
    axis: ({ table, span }) => {
      const range = airy(extent(table.series.get("loss"), span, log ? 0 : -Infinity), log);
      return { range, type: log ? "log" : "linear", format: "~g", ...(log ? logTicks(range) : {}) };
    },
    paint(pen, scene, x) {
      drawRestarts(pen, scene, x);
      drawNonfinite(pen, scene, x, "loss");
    },
    readout: (state, at) => seriesReadings(state.view.table, "loss", at),
  };
}
