// @ts-check
/**
 * The event lane: one row each for clipped steps, spikes, non-finite steps, restarts and marks, told apart by shape.
 */

import { formatCount } from "../format.js";
import { centre, nonfiniteAt } from "../series.js";
import { drawRug } from "./norm.js";
import { drawCross, NARROW, restartSteps } from "./panel.js";

/** @typedef {import("./panel.js").Scene} Scene */
/** @typedef {CanvasRenderingContext2D} Pen */

const ROWS = ["clipped", "spike", "non-finite", "restart", "marks"];
const MARKS = new Set(["user", "control", "hook"]);
const NEAR = 9; // pixels: shapes closer than this are drawn as one

/** @returns {import("./panel.js").PanelSpec} */
export const lanePanel = () => ({
  id: "lane",
  title: "Events",
  hint: "Clipped steps, spikes, non-finite steps, restarts and marks",
  steps: true,
  axis: () => ({
    range: [ROWS.length - 0.5, -0.5],
    values: [0, 1, 2, 3, 4],
    labels: ROWS,
    grid: false,
    size: NARROW.matches ? 10 : 11,
  }),
  traces: () => [],
  paint(pen, scene, x) {
    const height = scene.area.height / ROWS.length;
    const middle = (/** @type {number} */ row) => scene.area.top + (row + 0.5) * height;
    pen.fillStyle = scene.colours.grid;
    for (let row = 1; row < ROWS.length; row++)
      pen.fillRect(scene.area.left, Math.round(scene.area.top + row * height), scene.area.width, 1);
    drawRug(pen, scene, x, middle(0) - height / 2 + 3, height - 5);
    const steps = (/** @type {(kind: string) => boolean} */ wanted) =>
      scene.state.events.filter(({ kind }) => wanted(kind)).map(({ step }) => step);
    spaced(
      steps((kind) => kind === "spike"),
      x,
      (place) => triangle(pen, place, middle(1), scene.colours.spike),
    );
    spaced(nonfiniteSteps(scene), x, (place) => drawCross(pen, place, middle(2), scene.colours.nonfinite, 3.5));
    spaced(restartSteps(scene.state), x, (place) => bar(pen, place, middle(3), height, scene.colours.restart));
    spaced(
      steps((kind) => MARKS.has(kind)),
      x,
      (place) => diamond(pen, place, middle(4), scene.colours.mark),
    );
  },
  readout(state, at) {
    const { table } = state.view;
    if (state.cursor === null) return countReadings(state);
    const reach = Math.max(table.width, Math.round((table.last[table.last.length - 1] - table.first[0]) / 150));
    const near = state.events.filter(({ step }) => Math.abs(step - /** @type {number} */ (state.cursor)) <= reach);
    const shown = near.slice(0, 3).map((event) => ({
      label: formatCount(event.step),
      value: event.text || event.name || event.kind,
      tone: "event",
    }));
    if (near.length > 3) shown.push({ label: "", value: `and ${near.length - 3} more`, tone: "event" });
    if (!shown.length && nonfiniteAt(table, at))
      shown.push({ label: formatCount(table.first[at]), value: "non-finite", tone: "event bad" });
    return shown;
  },
});

/** How many events of each kind there are. @param {import("../state.js").State} state */
function countReadings(state) {
  const spikes = state.events.filter(({ kind }) => kind === "spike").length;
  const marks = state.events.filter(({ kind }) => MARKS.has(kind)).length;
  return [
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
