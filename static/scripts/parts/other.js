// @ts-check
/** One more chart for whichever other series the run has: learning rate, loss scale, what the user logs. */

import { airy } from "../axes.js";
import { bendsGradient } from "../clip.js";
import { h } from "../dom.js";
import { extent } from "../lines.js";
import { recall, remember } from "../theme.js";
import { drawNonfinite, seriesReadings, seriesTraces } from "./loss.js";
import { drawRestarts } from "./panel.js";

const KEY = "gradwatch.other-series";
const ELSEWHERE = new Set(["loss", "total_norm", "clipped", "threshold", "nonfinite", "skipped", "overflowed"]);

/** @param {import("../state.js").State} state */
const choices = ({ view: { table } }) =>
  [...table.series]
    .filter(([name, stats]) => !ELSEWHERE.has(name) && (stats.count.some(Boolean) || stats.nonfinite.some(Boolean)))
    .map(([name]) => name)
    .filter((name) => name !== "clip_cosine" || bendsGradient(table));

/** @returns {import("./panel.js").PanelSpec & {watch: (redraw: () => void) => void}} */
export function otherPanel() {
  let redraw = () => {};
  let listed = "";
  const select = h("select", {
    "aria-label": "Series to draw",
    onChange: () => {
      remember(KEY, select.value);
      redraw();
    },
  });
  /** @param {import("../state.js").State} state */
  const chosen = (state) => {
    const names = choices(state);
    if (names.join("\n") !== listed) {
      listed = names.join("\n");
      const wanted = select.value || recall(KEY) || "learning_rate";
      select.replaceChildren(...names.map((name) => h("option", { value: name }, name.replaceAll("_", " "))));
      select.value = names.includes(wanted) ? wanted : (names[0] ?? "");
    }
    return select.value;
  };
  return {
    id: "other",
    title: "More series",
    steps: true,
    controls: [select],
    watch: (callback) => (redraw = callback),
    traces: (scene) => seriesTraces(scene, chosen(scene.state), scene.colours.other, false),
    axis: ({ table, span, state }) => ({
      range: airy(extent(table.series.get(chosen(state)), span), false),
      format: "~g",
    }),
    paint(pen, scene, x) {
      drawRestarts(pen, scene, x);
      drawNonfinite(pen, scene, x, chosen(scene.state));
    },
    readout: (state, at) => seriesReadings(state.view.table, chosen(state), at),
  };
}
