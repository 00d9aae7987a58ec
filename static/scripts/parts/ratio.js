// @ts-check
/** The clip ratio: the share of the last 200 steps that were clipped. */

import { formatShare } from "../format.js";
import { line } from "../lines.js";
import { rollingShare } from "../series.js";
import { faded } from "../theme.js";
import { lineTrace } from "../traces.js";
import { drawRestarts } from "./panel.js";

export const WINDOW = 200;

/** @type {WeakMap<import("../series.js").Table, Float64Array>} */
const shares = new WeakMap();

/** @param {import("../series.js").Table} table */
export function clipShare(table) {
  const known = shares.get(table) ?? rollingShare(table, "clipped", WINDOW);
  shares.set(table, known);
  return known;
}

/** @returns {import("./panel.js").PanelSpec} */
export const ratioPanel = () => ({
  id: "ratio",
  title: "Clip ratio",
  hint: `Share of the last ${WINDOW} steps that were clipped`,
  axis: () => ({ range: [-0.06, 1.06], values: [0, 0.5, 1], labels: ["0 %", "50 %", "100 %"] }),
  traces: ({ table, span, colours }) => {
    const points = line(table, clipShare(table), span);
    return [{ ...lineTrace(points, { colour: colours.clip }), fill: "tozeroy", fillcolor: faded(colours.clip, 0.14) }];
  },
  paint: drawRestarts,
  readout: (state, at) => {
    const clipped = state.view.table.series.get("clipped");
    if (!clipped) return [];
    return [
      { label: `last ${WINDOW}`, value: formatShare(clipShare(state.view.table)[at]) },
      ...(clipped.count[at]
        ? [{ label: "clipped", value: `${Math.round(clipped.mean[at] * clipped.count[at])} of ${clipped.count[at]}` }]
        : []),
    ];
  },
});
