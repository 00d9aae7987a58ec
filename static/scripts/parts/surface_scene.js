// @ts-check
/**
 * What a surface's two drawings consist of: contours with the path on them, or a relief with the path at its true
 * losses.
 */

import { finerPoints, latticeOf, onScale, scaleTicks } from "../surface.js";
import { ramp } from "../diverging.js";
import { contourTrace, dotsTrace, lineTrace, spaceTrace, surfaceTrace } from "../traces.js";
import { drawHatch, drawVoid } from "./hatching.js";

/** @typedef {import("./landscape_surface.js").View} View */
/** @typedef {import("../theme.js").Colours} Colours */

const [LIGHT, DARK] = ["#ffffff", "#14181d"]; // over every colour of the ramps, in both themes

const PATH = { loss: "#ff5a36", slope: "#37d5f5" }; // in 3-D a line has no casing: a colour that the ramp has not

/** @type {Record<string, [string, string]>} */
const AXES = {
  update: ["u: along the update", "v: along the gradient"],
  trajectory: ["u: first principal direction", "v: second principal direction"],
  random: ["u: a random direction", "v: another random direction"],
};

/** The names of a surface's axes. @param {import("../landscape.js").Surface} surface */
const titles = ({ about }) => AXES[String(about.plane)] ?? ["u", "v"];

/** @param {number[]} axis @returns {[number, number]} */
const ends = (axis) => [axis[0], axis[axis.length - 1]];

/**
 * @param {View} view @param {import("./figure.js").Size} size @param {Colours} theme
 * @returns {import("./figure.js").Drawn}
 */
export function flatScene(view, size, theme) {
  const { surface, lattice, grid, colours, empty } = view;
  const scale = /** @type {import("../surface.js").Scale} */ (view.scale);
  const { u, v, z, stride } = lattice;
  const fine = finerPoints(surface, stride, grid);
  const shades = ramp(colours, 64);
  const shade = (/** @type {number} */ value) =>
    shades[Math.round(((Number(onScale(value, scale)) - scale.low) / (scale.high - scale.low)) * 63)];
  const [x, y] = [ends(u), ends(v)];
  return {
    traces: [
      contourTrace(
        { x: u, y: v, z: z.map((row) => row.map((value) => onScale(value, scale))) },
        { low: scale.low, high: scale.high, colours, line: "rgba(255, 255, 255, 0.28)" },
      ),
      dotsTrace(
        { x: fine.map((point) => point.x), y: fine.map((point) => point.y) },
        { colour: fine.map(({ value }) => shade(value)), size: 6, rim: "rgba(255, 255, 255, 0.6)" },
      ),
      ...pathTraces(surface, x, y),
    ],
    x: { range: x, format: "~g", title: titles(surface)[0], grid: false },
    y: { range: y, format: "~g", title: titles(surface)[1], grid: false },
    paint(pen, place) {
      drawVoid(pen, place.x(x[0]), place.y(y[1]), size.width, size.height);
      const [wide, high] = [size.width / (u.length - 1), size.height / (v.length - 1)];
      for (const { i, j } of empty.nonfinite)
        drawHatch(pen, place.x(surface.u[i]) - wide / 2, place.y(surface.v[j]) - high / 2, wide, high);
    },
  };
}

/**
 * The path within the picture, the anchor as a ring, the newest weights emphasised.
 * @param {import("../landscape.js").Surface} surface @param {[number, number]} x @param {[number, number]} y
 */
function pathTraces({ path }, x, y) {
  const inside = insideOf(path, x, y);
  const kept = (/** @type {(number | null)[]} */ values) => values.filter((_, at) => inside[at]);
  const last = path.step.length - 1;
  const newest = { x: [path.u[last]], y: [path.v[last]] };
  const line = { x: path.u, y: path.v };
  return [
    lineTrace(line, { colour: DARK, width: 4 }),
    lineTrace(line, { colour: LIGHT, width: 1.75 }),
    dotsTrace({ x: kept(path.u), y: kept(path.v) }, { colour: LIGHT, size: 5, rim: DARK }),
    ...(inside[last] ? [dotsTrace(newest, { colour: LIGHT, size: 12, rim: DARK })] : []),
    dotsTrace({ x: [0], y: [0] }, { colour: "rgba(255, 255, 255, 0)", size: 15, rim: DARK }),
    dotsTrace({ x: [0], y: [0] }, { colour: "rgba(255, 255, 255, 0)", size: 12.5, rim: LIGHT }),
  ];
}

/**
 * Which points of a path lie within the picture.
 * @param {import("../landscape.js").Path} path @param {[number, number]} x @param {[number, number]} y
 */
const insideOf = (path, x, y) =>
  path.step.map((_, at) => {
    const [u, v] = [path.u[at] ?? NaN, path.v[at] ?? NaN];
    return u >= x[0] && u <= x[1] && v >= y[0] && v <= y[1];
  });

/**
 * Heights are losses, whatever is coloured; the path runs at its true losses, so it may leave the relief.
 * @param {View} view
 */
export function spaceScene({ surface, lattice, grid, scale, heights, colours, quantity }) {
  if (!scale || !heights) return { traces: [], z: { range: /** @type {[number, number]} */ ([0, 1]) } };
  const { u, v } = lattice;
  const thin = (/** @type {import("../surface.js").Grid} */ values, /** @type {import("../surface.js").Scale} */ by) =>
    latticeOf(surface, values).z.map((row) => row.map((value) => onScale(value, by)));
  const { path } = surface;
  const inside = insideOf(path, ends(u), ends(v));
  const z = path.loss.map((value) => onScale(value, heights));
  const known = path.step.map((_, at) => at).filter((at) => inside[at] && z[at] !== null);
  const of = (/** @type {(number | null)[]} */ values) => known.map((at) => values[at]);
  const air = (heights.high - heights.low) * 0.04;
  return {
    traces: [
      surfaceTrace(
        { x: u, y: v, z: thin(surface.loss, heights) },
        { low: scale.low, high: scale.high, colours, colour: thin(grid, scale) },
      ),
      spaceTrace(
        { x: of(path.u), y: of(path.v), z: of(z) },
        PATH[quantity],
        known.map((_, at) => (at === known.length - 1 ? 8 : 4)),
      ),
    ],
    z: {
      range: /** @type {[number, number]} */ ([heights.low - air, heights.high + air]),
      title: "loss",
      ...scaleTicks(heights, 4),
    },
  };
}
