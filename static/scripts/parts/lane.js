// @ts-check
/**
 * The event lane: one row each for clipped steps, steps left out, spikes, non-finite steps, restarts and marks, told
 * apart by shape. Rows of steps left out stand there only where there are such steps: their names are the legend.
 */

import { eventLine, skipReadings } from "../clip.js";
import { formatCount } from "../format.js";
import { drawCross, drawRing } from "../marks.js";
import { centre, nonfiniteAt, skipsAt } from "../series.js";
import { drawRug } from "./norm.js";
import { NARROW, restartSteps } from "./panel.js";

/** @typedef {import("./panel.js").Scene} Scene */
/** @typedef {CanvasRenderingContext2D} Pen */

const HOOK_SKIPS = "hook skips";
const SCALE_SKIPS = "scale skips";
const MARKS = new Set(["user", "control", "hook"]);
const NEAR = 9; // pixels: shapes closer than this are drawn as one

/** The rows to draw. @param {import("../series.js").Table} table */
function rowsOf(table) {
  const { hook, scaler } = skipsIn(table);
  return [
    "clipped",
    ...(hook ? [HOOK_SKIPS] : []),
    ...(scaler ? [SCALE_SKIPS] : []),
    "spike",
    "non-finite",
    "restart",
    "marks",
  ];
}

/** @type {WeakMap<import("../series.js").Table, {hook: number, scaler: number}>} */
const skips = new WeakMap();

/** Steps left out in the whole table. @param {import("../series.js").Table} table */
function skipsIn(table) {
  const known = skips.get(table) ?? { hook: 0, scaler: 0 };
  if (!skips.has(table)) {
    for (let at = 0; at < table.first.length; at++) {
      const { hook, scaler } = skipsAt(table, at);
      known.hook += hook;
      known.scaler += scaler;
    }
    skips.set(table, known);
  }
  return known;
}

/** @returns {import("./panel.js").PanelSpec} */
export const lanePanel = () => ({
  id: "lane",
  title: "Events",
  hint: "Clipped steps, spikes, non-finite steps, restarts and marks",
  steps: true,
  axis: ({ table }) => {
    const rows = rowsOf(table);
    return {
      range: [rows.length - 0.5, -0.5],
      values: rows.map((_, at) => at),
      labels: rows,
      grid: false,
      size: NARROW.matches ? 10 : 11,
    };
  },
  traces: () => [],
  paint(pen, scene, x) {
    const { colours, table, span } = scene;
    const rows = rowsOf(table);
    const height = scene.area.height / rows.length;
    const middle = (/** @type {string} */ row) => scene.area.top + (rows.indexOf(row) + 0.5) * height;
    pen.fillStyle = colours.grid;
    for (let row = 1; row < rows.length; row++)
      pen.fillRect(scene.area.left, Math.round(scene.area.top + row * height), scene.area.width, 1);
    drawRug(pen, scene, x, middle("clipped") - height / 2 + 3, height - 5);
    const steps = (/** @type {(kind: string) => boolean} */ wanted) =>
      scene.state.events.filter(({ kind }) => wanted(kind)).map(({ step }) => step);
    const skipped = { hook: /** @type {number[]} */ ([]), scaler: /** @type {number[]} */ ([]) };
    for (let at = span.from; at < span.to; at++) {
      const { hook, scaler } = skipsAt(table, at);
      if (hook) skipped.hook.push(centre(table, at));
      if (scaler) skipped.scaler.push(centre(table, at));
    }
    spaced(skipped.hook, x, (place) => square(pen, place, middle(HOOK_SKIPS), colours.skip));
    spaced(skipped.scaler, x, (place) => drawRing(pen, place, middle(SCALE_SKIPS), colours.skip));
    spaced(
      steps((kind) => kind === "spike"),
      x,
      (place) => triangle(pen, place, middle("spike"), colours.spike),
    );
    spaced(nonfiniteSteps(scene), x, (place) => drawCross(pen, place, middle("non-finite"), colours.nonfinite, 3.5));
    spaced(restartSteps(scene.state), x, (place) => bar(pen, place, middle("restart"), height, colours.restart));
    spaced(
      steps((kind) => MARKS.has(kind)),
      x,
      (place) => diamond(pen, place, middle("marks"), colours.mark),
    );
  },
  readout(state, at) {
    const { table } = state.view;
    if (state.cursor === null) return countReadings(state);
    const reach = Math.max(table.width, Math.round((table.last[table.last.length - 1] - table.first[0]) / 150));
    const near = state.events.filter(({ step }) => Math.abs(step - /** @type {number} */ (state.cursor)) <= reach);
    const shown = near.slice(0, 3).map((event) => ({
      label: formatCount(event.step),
      value: eventLine(event),
      tone: "event",
    }));
    if (near.length > 3) shown.push({ label: "", value: `and ${near.length - 3} more`, tone: "event" });
    if (!shown.length && nonfiniteAt(table, at))
      shown.push({ label: formatCount(table.first[at]), value: "non-finite", tone: "event bad" });
    return [...skipReadings(skipsAt(table, at), table.series.get("skipped")?.count[at] ?? 0), ...shown];
  },
});

/** How many events of each kind there are. @param {import("../state.js").State} state */
function countReadings(state) {
  const spikes = state.events.filter(({ kind }) => kind === "spike").length;
  const marks = state.events.filter(({ kind }) => MARKS.has(kind)).length;
  const { hook, scaler } = skipsIn(state.view.table);
  return [
    ...(hook ? [{ label: HOOK_SKIPS, value: `■ ${formatCount(hook)}` }] : []),
    ...(scaler ? [{ label: SCALE_SKIPS, value: `○ ${formatCount(scaler)}` }] : []),
    { label: "spikes", value: formatCount(spikes) },
    { label: "restarts", value: formatCount(restartSteps(state).length) },
    { label: "marks", value: formatCount(marks) },
  ];
}

/** Non-finite steps from the events and from the columns, whichever came first. @param {Scene} scene */
function nonfiniteSteps({ state, table, span }) {
  const steps = state.events.filter(({ kind }) => kind === "nonfinite").map(({ step }) => step);
  for (let at = span.from; at < span.to; at++) if (nonfiniteAt(table, at)) steps.push(centre(table, at));
  return steps;
}

/** @param {number[]} steps @param {(step: number) => number} x @param {(place: number) => void} draw */
function spaced(steps, x, draw) {
  let last = -Infinity;
  for (const step of [...steps].sort((a, b) => a - b)) {
    const place = x(step);
    if (place - last < NEAR) continue;
    draw(place);
    last = place;
  }
}

/** @param {Pen} pen @param {number} x @param {number} y @param {string} colour */
function triangle(pen, x, y, colour) {
  shape(pen, colour, [
    [x, y - 4.5],
    [x + 5, y + 4],
    [x - 5, y + 4],
  ]);
}

/** @param {Pen} pen @param {number} x @param {number} y @param {string} colour */
function square(pen, x, y, colour) {
  pen.fillStyle = colour;
  pen.fillRect(x - 3.5, y - 3.5, 7, 7);
}

/** @param {Pen} pen @param {number} x @param {number} y @param {string} colour */
function diamond(pen, x, y, colour) {
  shape(pen, colour, [
    [x, y - 4.5],
    [x + 4.5, y],
    [x, y + 4.5],
    [x - 4.5, y],
  ]);
}

/** @param {Pen} pen @param {number} x @param {number} y @param {number} height @param {string} colour */
function bar(pen, x, y, height, colour) {
  pen.fillStyle = colour;
  pen.fillRect(Math.round(x) - 1, y - height / 2 + 2, 3, height - 4);
}

/** @param {Pen} pen @param {string} colour @param {number[][]} corners */
function shape(pen, colour, corners) {
  pen.fillStyle = colour;
  pen.beginPath();
  for (const [x, y] of corners) pen.lineTo(x, y);
  pen.fill();
}
