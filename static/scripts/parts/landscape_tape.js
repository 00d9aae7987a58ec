// @ts-check
/**
 * The landscape tape: the loss along each probed update, one column per probe over the same steps as the charts above;
 * a canvas under plotly's axes, with the step taken, the best alpha and the critical step drawn in.
 */

import { placeOf, ramp, topOf, valueAt } from "../diverging.js";
import { h, setText } from "../dom.js";
import { formatCount, formatValue } from "../format.js";
import { changes, columnNear, columnsOf, criticalLine, criticalOf, edgesOf } from "../tape.js";
import { dotsTrace, lineTrace } from "../traces.js";
import { drawHatch, drawVoid } from "./hatching.js";
import { NARROW } from "./panel.js";

/** @typedef {import("./panel.js").Scene} Scene */
/** @typedef {import("../landscape.js").Landscape} Landscape */
/** @typedef {import("../tape.js").Column} Column */
/** @typedef {{columns: Column[], changes: (number | null)[][], edges: number[], top: number}} Picture */

const COLOURS = 129;
const TOP = 4.5; // the tape's upper edge; marks of what lies beyond stand just below it

/** @type {WeakMap<Landscape, Picture>} */
const pictures = new WeakMap();

/** @param {Landscape | null} data @returns {Picture | null} */
export function tapePicture(data) {
  if (!data?.tape.probes.length) return null;
  let picture = pictures.get(data);
  if (!picture) {
    const columns = columnsOf(data.tape.probes);
    const rows = columns.map(({ probe }) => changes(probe));
    picture = { columns, changes: rows, edges: edgesOf(data.tape.alpha), top: topOf(rows.flat()) };
    pictures.set(data, picture);
  }
  return picture;
}

/** @returns {import("./panel.js").PanelSpec} */
export function tapePanel() {
  const legend = tapeLegend();
  return {
    id: "tape",
    title: "Landscape tape",
    hint: "Loss along each probed update over the steps, against the loss before it",
    steps: true,
    image: true,
    controls: [legend.element],
    axis: () => alphaAxis(NARROW.matches),
    traces: (scene) => tapeTraces(scene),
    paint(pen, scene, x) {
      const picture = tapePicture(scene.state.landscape.data);
      const colours = ramp(scene.colours.change, COLOURS);
      legend.update(picture?.top ?? 1, colours);
      if (picture) paintCells(pen, scene, picture, colours, x);
    },
    readout: (state, _, y) => tapeReadings(state, y),
  };
}

/** @param {boolean} narrow */
const alphaAxis = (narrow) => ({
  range: /** @type {[number, number]} */ ([-0.625, TOP]),
  values: [-0.5, 0, 1, 2, 3, 4],
  labels: narrow
    ? ["−0.5", "before 0", "taken 1", "2", "3", "4"]
    : ["a half back  −0.5", "before the step  0", "the step taken  1", "twice the step  2", "3", "4"],
  grid: false,
  size: narrow ? 10 : 11,
});

/**
 * @param {CanvasRenderingContext2D} pen @param {Scene} scene @param {Picture} picture @param {string[]} colours
 * @param {(step: number) => number} x
 */
function paintCells(pen, { area }, { columns, changes: rows, edges, top }, colours, x) {
  const y = (/** @type {number} */ alpha) => area.top + ((TOP - alpha) / (TOP + 0.625)) * area.height;
  columns.forEach(({ from, to }, at) => {
    const left = Math.round(x(from));
    const width = Math.max(2, Math.round(x(to)) - left);
    if (left > area.left + area.width || left + width < area.left) return;
    rows[at].forEach((change, row) => {
      const [high, low] = [Math.round(y(edges[row + 1])), Math.round(y(edges[row]))];
      if (change === null) drawVoid(pen, left, high, width, low - high);
      else if (!Number.isFinite(change)) drawHatch(pen, left, high, width, low - high);
      else {
        pen.fillStyle = colours[Math.round(((placeOf(change, top) + 1) / 2) * (COLOURS - 1))];
        pen.fillRect(left, high, width, low - high);
      }
    });
  });
}

/** The lines over the cells, each with a casing, so that it shows on every colour. @param {Scene} scene */
function tapeTraces({ state, range, area, colours: { text, surface } }) {
  const picture = tapePicture(state.landscape.data);
  if (!picture) return [];
  const { columns } = picture;
  const ends = { x: [columns[0].from, columns[columns.length - 1].to], y: [1, 1] };
  const best = { x: columns.map(({ probe }) => probe.step), y: columns.map(({ probe }) => drawable(probe.best_alpha)) };
  const { line, beyond, atOnce } = criticalLine(columns, 4);
  const edge = { x: beyond, y: beyond.map(() => TOP - 0.16) };
  const inView = columns.filter(({ from, to }) => to >= range[0] && from <= range[1]).length;
  const few = inView * 9 <= area.width; // else the dots would hide each other
  return [
    lineTrace(ends, { colour: surface, width: 3 }),
    lineTrace(ends, { colour: text, width: 1.25, dash: "4px,3px" }),
    ...(few ? [] : [lineTrace(best, { colour: text, width: 1, dash: "1px,2px" })]),
    ...(few ? [dotsTrace(best, { colour: surface, size: 5.5, rim: text })] : []),
    lineTrace(line, { colour: surface, width: 4.5 }),
    lineTrace(line, { colour: text, width: 2.25 }),
    dotsTrace(edge, { colour: text, size: few ? 7 : 5, symbol: "triangle-up", rim: few ? surface : undefined }),
    dotsTrace(atOnce, { colour: text, size: 7, symbol: "triangle-down", rim: surface }),
  ];
}

/** @param {number | null} alpha */
const drawable = (alpha) => (alpha !== null && alpha >= -0.625 && alpha <= TOP ? alpha : null);

/** What the probe under the crosshair found, or the newest. @param {import("../state.js").State} state */
export function chosenColumn(state) {
  const picture = tapePicture(state.landscape.data);
  if (!picture) return null;
  if (state.cursor === null) return picture.columns[picture.columns.length - 1];
  return columnNear(picture.columns, state.cursor);
}

/**
 * @param {import("../state.js").State} state @param {number | null} y @returns {import("./panel.js").Reading[]}
 */
function tapeReadings(state, y) {
  const column = chosenColumn(state);
  const data = state.landscape.data;
  if (!column || !data) return [];
  const { probe } = column;
  const change = changes(probe);
  const alpha = y === null ? null : TOP - y * (TOP + 0.625);
  const edges = edgesOf(data.tape.alpha);
  const row =
    alpha === null ? -1 : edges.findIndex((edge, at) => alpha >= edge && alpha < (edges[at + 1] ?? -Infinity));
  const taken = probe.taken === null || probe.base === null ? null : probe.taken - probe.base;
  return [
    { label: "probe at", value: formatCount(probe.step) },
    { label: "before", value: formatValue(probe.base, 6) },
    row >= 0 && row < change.length
      ? { label: `Δ at ${data.tape.alpha[row]}`, value: change[row] === null ? "not computed" : signed(change[row]) }
      : { label: "Δ taken", value: signed(taken) },
    { label: "best α", value: formatValue(probe.best_alpha, 3) },
    { label: "critical α", value: criticalWords(probe) },
  ];
}

/** @param {number | null} value */
const signed = (value) =>
  value !== null && value > 0 ? `+${formatValue(value).replace("+", "")}` : formatValue(value);

/** @param {import("../landscape.js").Probe} probe */
export function criticalWords(probe) {
  const { alpha, bracket } = criticalOf(probe);
  if (bracket === "unknown") return "not measured";
  return `${{ beyond: "> ", "at once": "≤ ", at: "" }[bracket]}${formatValue(alpha, 3)}`;
}

/** The colours and lines of the tape, named. */
function tapeLegend() {
  const [low, high, bar] = [h("span"), h("span"), h("span", { className: "ramp wide" })];
  const zero = h("span", { className: "ramp-zero" }, "0");
  const sign = (/** @type {string} */ kind, /** @type {string} */ word) =>
    h("span", { className: "sign" }, h("i", { className: `sign-${kind}`, "aria-hidden": "true" }), word);
  const element = h(
    "div",
    { className: "colour-scale tape-legend" },
    sign("taken", "taken"),
    sign("best", "best"),
    sign("critical", "critical"),
    sign("beyond", "beyond"),
    h("span", { className: "scale-bar" }, low, h("span", { className: "ramp-box" }, bar, zero), high),
    sign("void", "not computed"),
    sign("hatch", "non-finite"),
  );
  let drawn = "";
  const update = (/** @type {number} */ top, /** @type {string[]} */ colours) => {
    setText(low, `falls −${formatValue(valueAt(1, top), 1)}`);
    setText(high, `rises +${formatValue(valueAt(1, top), 1)}`);
    const gradient = `linear-gradient(to right, ${colours.filter((_, at) => at % 8 === 0).join(", ")})`;
    if (drawn !== gradient) bar.style.background = drawn = gradient;
  };
  return { element, update };
}
