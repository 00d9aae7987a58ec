// @ts-check
/**
 * A surface made ready to draw: the finest grid that is whole, finer points beyond it, a log scale with its cap, and
 * the in-plane gradient by finite differences. Nothing is filled in. Pure.
 */

import { formatValue } from "./format.js";

/** @typedef {import("./landscape.js").Value} Value */
/** @typedef {import("./landscape.js").Surface} Surface */
/** @typedef {Value[][]} Grid [j][i] at v[j], u[i] */
/** @typedef {{x: number, y: number, value: number}} Point */
/** @typedef {{i: number, j: number}} Cell */
/** @typedef {{u: number[], v: number[], z: Grid, stride: number}} Lattice every stride-th row and column */
/**
 * @typedef {object} Scale of colours and heights: log10(value + shift), cut off at the cap
 * @property {number} shift @property {number} low @property {number} high both in log10
 * @property {number | null} cap a value, where some lie above it
 */

const WHOLE = 0.95; // of a grid's points tried: then it is drawn
const SIDES = [5, 9, 17, 33];
const CAP_SHARE = 0.97;
const CAP_JUMP = 0.3; // decades that the highest values must tower over the cap

const finite = (/** @type {Value | undefined} */ value) =>
  value !== null && value !== undefined && Number.isFinite(value);

/** The strides of a grid's levels, coarse to fine. @param {number} size points a side */
export const stridesOf = (size) =>
  SIDES.map((side) => (size - 1) / (side - 1)).filter((stride) => Number.isInteger(stride) && stride >= 1);

/** @param {Grid} grid @param {number} stride */
const thinned = (grid, stride) =>
  grid.filter((_, j) => j % stride === 0).map((row) => row.filter((_, i) => i % stride === 0));

/**
 * The grid to draw: the finest that is (nearly) whole, else the coarsest.
 * @param {Surface} surface @param {Grid} [grid]
 */
export function latticeOf({ u, v, loss }, grid = loss) {
  const strides = stridesOf(u.length);
  const tried = (/** @type {number} */ stride) => {
    const cells = thinned(loss, stride).flat();
    return cells.filter((value) => value !== null).length / cells.length;
  };
  const stride = [...strides].reverse().find((step) => tried(step) >= WHOLE) ?? strides[0] ?? 1;
  const every = (/** @type {number[]} */ axis) => axis.filter((_, at) => at % stride === 0);
  return { u: every(u), v: every(v), z: thinned(grid, stride), stride };
}

/**
 * Points that are finer than the grid that is drawn.
 * @param {Surface} surface @param {number} stride @param {Grid} grid
 */
export function finerPoints({ u, v }, stride, grid) {
  /** @type {Point[]} */ const points = [];
  grid.forEach((row, j) =>
    row.forEach((value, i) => {
      if ((i % stride || j % stride) && finite(value)) points.push({ x: u[i], y: v[j], value: Number(value) });
    }),
  );
  return points;
}

/**
 * Cells of the grid that were tried and came out non-finite, and those never tried.
 * @param {Surface} surface @param {number} stride
 */
export function emptyCells({ loss }, stride) {
  const found = { nonfinite: /** @type {Cell[]} */ ([]), missing: /** @type {Cell[]} */ ([]) };
  loss.forEach((row, j) =>
    row.forEach((value, i) => {
      const bad = value !== null && !Number.isFinite(value);
      if (bad) found.nonfinite.push({ i, j });
      else if (value === null && !(i % stride) && !(j % stride)) found.missing.push({ i, j });
    }),
  );
  return found;
}

/**
 * How many points the finest wanted grid has, how many of them were never computed, and how many finer ones there are.
 * @param {Surface} surface
 */
export function countsOf({ about, loss, computed }) {
  const side = Number(about.levels) || loss.length;
  const stride = Math.max(1, Math.round((loss.length - 1) / (side - 1)));
  const cells = thinned(loss, stride).flat();
  const missing = cells.filter((value) => value === null).length;
  return { wanted: cells.length, missing, finer: Math.max(0, computed - (cells.length - missing)) };
}

/**
 * The scale of a grid. Losses that reach zero or below are lifted above it; a few that tower over the rest are cut off,
 * else they alone would be seen.
 * @param {Grid} grid @returns {Scale | null}
 */
export function scaleOf(grid) {
  const values = /** @type {number[]} */ (grid.flat().filter(finite)).sort((a, b) => a - b);
  if (!values.length) return null;
  const [lowest, highest] = [values[0], values[values.length - 1]];
  const shift = lowest > 0 ? 0 : (highest - lowest) / 1_000 - lowest || 1 - lowest;
  const log = (/** @type {number} */ value) => Math.log10(value + shift);
  const share = values[Math.min(values.length - 1, Math.ceil(CAP_SHARE * values.length) - 1)];
  const cap = log(highest) - log(share) > CAP_JUMP ? share : null;
  const [low, high] = [log(lowest), log(cap ?? highest)];
  return { shift, low, high: high > low ? high : low + 1e-6, cap };
}

/** A value on the scale, in log10; a gap where there is none. @param {Value} value @param {Scale} scale */
export function onScale(value, { shift, high }) {
  const place = finite(value) ? Math.log10(Number(value) + shift) : NaN;
  return Number.isFinite(place) ? Math.min(high, place) : null;
}

/** How many values lie above the cap. @param {Grid} grid @param {Scale | null} scale */
export const cappedIn = (grid, scale) =>
  scale?.cap == null ? 0 : grid.flat().filter((value) => finite(value) && Number(value) > Number(scale.cap)).length;

/**
 * Values to name on the scale, evenly in log10; the last stands for all above the cap.
 * @param {Scale} scale @param {number} count
 */
export function scaleTicks({ shift, low, high, cap }, count) {
  const values = Array.from({ length: count }, (_, at) => low + ((high - low) * at) / (count - 1));
  const labels = values.map((value) => formatValue(10 ** value - shift, 3));
  if (cap !== null) labels[count - 1] = `≥ ${labels[count - 1]}`;
  return { values, labels };
}

/**
 * The length of the gradient within the plane, per unit of length in weight space, by differences to computed
 * neighbours of the same grid: central where both are there, else one-sided; a gap where a direction has neither.
 * @param {Surface} surface @param {number} stride @returns {Grid}
 */
export function gradientGrid({ u, v, loss, unit_u, unit_v }, stride) {
  const length = (/** @type {Value} */ unit) => (finite(unit) && Number(unit) > 0 ? Number(unit) : 1);
  const [across, up] = [length(unit_u), length(unit_v)];
  const at = (/** @type {number} */ i, /** @type {number} */ j) => loss[j]?.[i];
  return loss.map((row, j) =>
    row.map((value, i) => {
      if (i % stride || j % stride || !finite(value)) return null;
      const slopeU = slope([at(i - stride, j), value, at(i + stride, j)], [u[i - stride], u[i], u[i + stride]]);
      const slopeV = slope([at(i, j - stride), value, at(i, j + stride)], [v[j - stride], v[j], v[j + stride]]);
      return slopeU === null || slopeV === null ? null : Math.hypot(slopeU / across, slopeV / up);
    }),
  );
}

/** @param {(Value | undefined)[]} values before, here, after @param {number[]} places @returns {number | null} */
function slope(values, places) {
  const from = finite(values[0]) ? 0 : 1;
  const to = finite(values[2]) ? 2 : 1;
  return from === to ? null : (Number(values[to]) - Number(values[from])) / (places[to] - places[from]);
}

/**
 * The cell nearest to a place, among those of the grid.
 * @param {Lattice} lattice @param {number} x @param {number} y
 */
export function cellAt({ u, v, stride }, x, y) {
  const nearest = (/** @type {number[]} */ axis, /** @type {number} */ value) =>
    axis.reduce((best, place, at) => (Math.abs(place - value) < Math.abs(axis[best] - value) ? at : best), 0);
  return { i: nearest(u, x) * stride, j: nearest(v, y) * stride };
}
