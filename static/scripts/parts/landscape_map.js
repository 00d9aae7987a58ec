// @ts-check
/** The trajectory map: the path of the weights in its own principal plane, with the distance it leaves that plane. */

import { airy, equalRanges, finiteExtent } from "../axes.js";
import { explainedWords, lossWords, mapCaption } from "../captions.js";
import { h, setText } from "../dom.js";
import { formatCount, formatValue } from "../format.js";
import { STOP_COLOURS } from "../heatmap.js";
import { ramp } from "../diverging.js";
import { onScale, scaleOf } from "../surface.js";
import { faded } from "../theme.js";
import { dotsTrace, lineTrace } from "../traces.js";
import { colourLegend } from "./legend.js";

/** @typedef {import("../state.js").State} State */
/** @typedef {import("../landscape.js").Trajectory} Trajectory */

const COLOURS = ramp(STOP_COLOURS, 64);

/** @returns {import("./figure.js").FigureSpec & {tell: (state: State) => void}} */
export function mapFigure() {
  const words = h("p", { className: "figure-words" });
  const legend = colourLegend(["sign-open", "loss not known"]);
  return {
    id: "map",
    title: "Trajectory map",
    hint: "Path of the weights in its own principal plane, coloured by loss",
    margin: { left: 58, right: 14, top: 8, bottom: 36 },
    controls: [],
    lead: [words, legend.element],
    tell(state) {
      const trajectory = state.landscape.data?.trajectory;
      setText(words, trajectory ? explainedWords(trajectory) : "No snapshots of the weights yet.");
      const scale = trajectory ? scaleOf([trajectory.loss]) : null;
      legend.update(scale, STOP_COLOURS, { "sign-open": missingIn(trajectory) });
    },
    inputs: (state) => [state.landscape.data],
    draw: (state, size, theme) => {
      const { data } = state.landscape;
      return data?.trajectory ? drawPath(data.trajectory, size, theme) : null;
    },
    caption: (state) => {
      const { data } = state.landscape;
      return data ? mapCaption(data, missingIn(data.trajectory)) : "";
    },
  };
}

/** @param {Trajectory | null | undefined} trajectory */
const missingIn = (trajectory) => trajectory?.loss.filter((loss) => !Number.isFinite(loss ?? NaN)).length ?? 0;

/**
 * @param {Trajectory} trajectory @param {import("./figure.js").Size} size @param {import("../theme.js").Colours} theme
 * @returns {import("./figure.js").Drawn | null}
 */
function drawPath({ step, x, y, off, loss, explained }, { width, height }, theme) {
  const [across, up] = [finiteExtent(x), finiteExtent(y)];
  if (!across || !up) return null;
  const ranges = equalRanges(across, up, width, height);
  const scale = scaleOf([loss]);
  const colour = loss.map((value) => {
    const place = scale && onScale(value, scale);
    return place === null || !scale
      ? faded(theme.line, 0.35)
      : COLOURS[Math.round(((place - scale.low) / (scale.high - scale.low)) * 63)];
  });
  const last = step.length - 1;
  const share = (/** @type {number | null} */ value) => (value === null ? "" : ` (${(100 * value).toFixed(0)} %)`);
  const rim = colour.map(() => theme.line);
  return {
    traces: [
      lineTrace({ x, y }, { colour: faded(theme.line, 0.55), width: 1.25 }),
      {
        ...dotsTrace({ x, y }, { colour, size: 7 }),
        marker: { color: colour, size: 7, line: { width: 0.5, color: rim } },
      },
      dotsTrace({ x: [x[0]], y: [y[0]] }, { colour: theme.surface, size: 10, symbol: "square", rim: theme.text }),
      dotsTrace({ x: [x[last]], y: [y[last]] }, { colour: colour[last], size: 15, symbol: "circle", rim: theme.text }),
    ],
    x: { range: ranges.x, format: "~g", title: `first direction${share(explained[0])}, distance in weight space` },
    y: { range: ranges.y, format: "~g", title: `second direction${share(explained[1])}` },
    marks: {
      x: x.map((value) => value ?? NaN),
      y: y.map((value) => value ?? NaN),
      words: (at) =>
        `step ${formatCount(step[at])}: loss ${lossWords(loss[at])}, ${formatValue(off[at], 3)} off the plane`,
    },
  };
}

/** How far the path leaves the plane, over the steps. @returns {import("./figure.js").FigureSpec} */
export const offPlaneFigure = () => ({
  id: "off",
  title: "Distance off the plane",
  hint: "Distance of the weights from the plane of the map, over the steps",
  margin: { left: 58, right: 14, top: 6, bottom: 22 },
  inputs: (state) => [state.landscape.data],
  draw(state, _, theme) {
    const trajectory = state.landscape.data?.trajectory;
    const reach = finiteExtent(trajectory?.off ?? []);
    if (!trajectory || !reach) return null;
    const { step, off } = trajectory;
    const [first, last] = [step[0], step[step.length - 1]];
    const line = {
      ...lineTrace({ x: step, y: off }, { colour: theme.other }),
      fill: "tozeroy",
      fillcolor: faded(theme.other, 0.14),
    };
    return {
      traces: [line],
      x: { range: [first, Math.max(first + 1, last)], format: ",d", grid: false },
      y: { range: [0, airy([0, reach[1]], false)[1]], format: "~g" },
      marks: {
        x: step,
        y: off.map((value) => value ?? NaN),
        words: (at) => `step ${formatCount(step[at])}: ${formatValue(off[at], 3)} off the plane`,
      },
    };
  },
  caption: () => "",
});
