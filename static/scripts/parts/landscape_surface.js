// @ts-check
/**
 * The surface around the weights of one step: filled contours of the loss or of its in-plane slope, with the path of
 * the
 * weights on it; in 3-D where that is wanted.
 */

import { lossWords, planeName, surfaceCaption } from "../captions.js";
import { h, setAttribute, setText } from "../dom.js";
import { formatCount, formatValue } from "../format.js";
import { STOP_COLOURS } from "../heatmap.js";
import { cappedIn, cellAt, countsOf, emptyCells, gradientGrid, latticeOf, scaleOf } from "../surface.js";
import { recall, remember } from "../theme.js";
import { colourLegend } from "./legend.js";
import { flatScene, spaceScene } from "./surface_scene.js";

/** @typedef {import("../state.js").State} State */
/** @typedef {import("../landscape.js").Surface} Surface */
/** @typedef {"loss" | "slope"} Quantity */
/**
 * @typedef {object} View a surface made ready
 * @property {Surface} surface @property {Quantity} quantity
 * @property {import("../surface.js").Grid} grid of the quantity
 * @property {import("../surface.js").Lattice} lattice @property {import("../surface.js").Scale | null} scale
 * @property {import("../surface.js").Scale | null} heights of the losses, whatever is coloured
 * @property {ReturnType<typeof emptyCells>} empty @property {number} capped @property {string[]} colours
 */

const KEY = "gradwatch.surface";
/** Another ramp than the loss has: it is another quantity. */
const SLOPE_COLOURS = ["#0d0b2b", "#3b0f70", "#8c2981", "#de4968", "#fe9f6d", "#fcfdbf"];

/** @type {Record<Quantity, string>} */
const HEADINGS = {
  loss: "Loss surface",
  slope: "In-plane gradient magnitude: regions prone to instability",
};
const NO_WEBGL = "This browser has no WebGL, which a 3-D view needs; the contour shows the same points.";

/** @param {Surface} surface @param {Quantity} quantity @returns {View} */
export function viewOf(surface, quantity) {
  const { stride } = latticeOf(surface);
  const grid = quantity === "loss" ? surface.loss : gradientGrid(surface, stride);
  const scale = scaleOf(grid);
  const colours = quantity === "loss" ? STOP_COLOURS : SLOPE_COLOURS;
  const [lattice, empty] = [latticeOf(surface, grid), emptyCells(surface, stride)];
  const heights = quantity === "loss" ? scale : scaleOf(surface.loss);
  return { surface, quantity, grid, lattice, scale, heights, empty, capped: cappedIn(grid, scale), colours };
}

/** Whether this browser can draw in 3-D at all. */
function hasWebGl() {
  const canvas = document.createElement("canvas");
  return Boolean(canvas.getContext("webgl2") ?? canvas.getContext("webgl"));
}

/**
 * @param {import("./panel.js").Context} context
 * @returns {import("./figure.js").FigureSpec & {tell: (state: State) => void, watch: (redraw: () => void) => void}}
 */
export function surfaceFigure({ actions }) {
  /** @type {Quantity} */ let quantity = recall(KEY) === "slope" ? "slope" : "loss";
  let space = false;
  let redraw = () => {};
  /** @type {View | null} */ let view = null;
  const current = (/** @type {State} */ state) => {
    const surface = state.landscape.data?.surface ?? null;
    if (!surface) return (view = null);
    if (view?.surface !== surface || view.quantity !== quantity) view = viewOf(surface, quantity);
    return view;
  };
  const parts = surfaceControls({
    quantity: (wanted) => {
      remember(KEY, (quantity = wanted));
      redraw();
    },
    space: (wanted) => {
      space = wanted && hasWebGl();
      parts.complain(wanted && !space);
      redraw();
    },
    choose: (probe) => actions.feed.landscape.choose(probe),
  });
  return {
    id: "surface",
    title: "Loss surface",
    hint: "Loss around the weights of one step, with the path of the weights",
    margin: { left: 58, right: 14, top: 8, bottom: 40 },
    heading: parts.heading,
    lead: [parts.toggles, parts.legend.element, parts.problem],
    watch: (callback) => (redraw = callback),
    tell: (state) => parts.update(state, current(state), quantity, space),
    inputs: (state) => [state.landscape.data?.surface, quantity, space],
    draw(state, size, theme) {
      const shown = current(state);
      if (!shown?.scale) return null;
      const flat = { ...flatScene(shown, size, theme), marks: surfaceMarks(shown) };
      return space ? { ...flat, space: spaceScene(shown) } : flat;
    },
    caption(state) {
      const shown = current(state);
      const { data } = state.landscape;
      if (!shown || !data) return "";
      return surfaceCaption(data, state.run?.last_step, { capped: shown.capped, ...countsOf(shown.surface) });
    },
  };
}

/** The grid's points to read, and the path's after them. @param {View} view @returns {import("./figure.js").Marks} */
function surfaceMarks({ lattice, surface, grid, scale, quantity }) {
  const { u, v } = lattice;
  const { path } = surface;
  const cells = v.flatMap((y) => u.map((x) => ({ x, y })));
  const onPath = path.step.map((_, at) => ({ x: path.u[at] ?? NaN, y: path.v[at] ?? NaN }));
  const words = (/** @type {number} */ at) => {
    if (at >= cells.length) {
      const step = at - cells.length;
      const off = `${formatValue(path.off[step], 3)} off the plane`;
      return `the weights at step ${formatCount(path.step[step])}: loss ${lossWords(path.loss[step])}, ${off}`;
    }
    const { x, y } = cells[at];
    const { i, j } = cellAt(lattice, x, y);
    const value = grid[j][i];
    const capped = scale?.cap != null && Number(value) > scale.cap ? " (drawn as capped)" : "";
    const slope = quantity === "slope" ? `, slope ${value === null ? "not known" : formatValue(value)}` : "";
    return `u ${formatValue(x, 3)}, v ${formatValue(y, 3)}: loss ${lossWords(surface.loss[j][i])}${slope}${capped}`;
  };
  const all = [...cells, ...onPath];
  return { x: all.map(({ x }) => x), y: all.map(({ y }) => y), words, across: u.length, start: cells.length >> 1 };
}

/**
 * @typedef {{quantity: (wanted: Quantity) => void, space: (wanted: boolean) => void, choose: (probe: number | null) =>
 * void}} Handlers
 */

/** @param {Handlers} on */
function surfaceControls(on) {
  const choices = h("select", {
    "aria-label": "Surface to draw",
    onChange: () => on.choose(choices.value === "" ? null : Number(choices.value)),
  });
  const button = (/** @type {string} */ words, /** @type {() => void} */ act, title = "") =>
    h("button", { type: "button", className: "segment", "aria-pressed": "false", title, onClick: act }, words);
  const [loss, slope] = [
    button("Loss", () => on.quantity("loss")),
    button("Gradient", () => on.quantity("slope"), "In-plane gradient magnitude: regions prone to instability"),
  ];
  const [flat, deep] = [button("Contour", () => on.space(false)), button("3-D", () => on.space(true))];
  const toggles = h(
    "div",
    { className: "surface-toggles" },
    h("div", { className: "segments", role: "group", "aria-label": "Colour by" }, loss, slope),
    h("div", { className: "segments", role: "group", "aria-label": "Drawn as" }, flat, deep),
    choices,
  );
  const legend = colourLegend(["sign-void", "not computed"], ["sign-hatch", "non-finite"], ["sign-cap", "capped"]);
  const heading = h("span");
  const problem = h("p", { className: "problem", role: "status", hidden: true }, NO_WEBGL);
  let listed = "";
  const list = (/** @type {State} */ { landscape: { data, surface } }) => {
    const entries = data?.surfaces ?? [];
    const key = JSON.stringify(entries.map(({ probe, step, plane }) => [probe, step, plane]));
    if (key !== listed) {
      listed = key;
      const named = entries.map(({ probe, step, plane }) =>
        h("option", { value: probe }, `step ${formatCount(step)}, ${planeName(plane)}`),
      );
      choices.replaceChildren(h("option", { value: "" }, "the newest"), ...named);
    }
    const value = surface === null ? "" : String(surface);
    if (choices.value !== value) choices.value = value;
    choices.hidden = entries.length < 2;
  };
  const update = (
    /** @type {State} */ state,
    /** @type {View | null} */ view,
    /** @type {Quantity} */ quantity,
    /** @type {boolean} */ space,
  ) => {
    list(state);
    for (const [element, on] of /** @type {[Element, boolean][]} */ ([
      [loss, quantity === "loss"],
      [slope, quantity === "slope"],
      [flat, !space],
      [deep, space],
    ]))
      setAttribute(element, "aria-pressed", String(on));
    toggles.hidden = !view;
    setText(heading, HEADINGS[quantity]);
    const { nonfinite = [], missing = [] } = view?.empty ?? {};
    const counts = { "sign-void": missing.length, "sign-hatch": nonfinite.length, "sign-cap": view?.capped ?? 0 };
    legend.update(view?.scale ?? null, view?.colours ?? [], counts);
  };
  const complain = (/** @type {boolean} */ missing) => (problem.hidden = !missing);
  return { heading, toggles, legend, problem, update, complain };
}
