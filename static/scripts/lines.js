// @ts-check
/** What charts draw of a table: lines, bands from min to max, and how far the values reach. Pure. */

import { centre } from "./series.js";

/** @typedef {import("./series.js").Table} Table */
/** @typedef {import("./series.js").Stats} Stats */
/** @typedef {import("./series.js").Span} Span */

/**
 * A line of column values; a gap (NaN) is null.
 * @param {Table} table @param {ArrayLike<number>} values @param {Span} span
 */
export function line(table, values, { from, to }) {
  const x = [];
  const y = [];
  for (let at = from; at < to; at++) {
    x.push(centre(table, at));
    y.push(Number.isFinite(values[at]) ? values[at] : null);
  }
  return { x, y };
}

/**
 * The band between min and max as closed outlines, one per unbroken stretch, parted by nulls.
 * @param {Table} table @param {Stats} stats @param {Span} span @param {number} [floor] lowest value to draw (log axes)
 */
export function band(table, stats, { from, to }, floor = -Infinity) {
  /** @type {(number | null)[]} */ const x = [];
  /** @type {(number | null)[]} */ const y = [];
  const drawn = (/** @type {number} */ at) => stats.count[at] > 0 && stats.max[at] >= floor;
  for (let start = from; start < to; start++) {
    if (!drawn(start)) continue;
    let end = start;
    while (end + 1 < to && drawn(end + 1)) end++;
    outline(table, stats, start, end, floor, x, y);
    start = end;
  }
  return { x, y };
}

/**
 * @param {Table} table @param {Stats} stats @param {number} start @param {number} end @param {number} floor
 * @param {(number | null)[]} x @param {(number | null)[]} y
 */
function outline(table, stats, start, end, floor, x, y) {
  if (x.length) (x.push(null), y.push(null));
  const single = start === end;
  const left = single ? table.first[start] - 0.5 : 0;
  const right = single ? table.last[start] + 0.5 : 0;
  if (single) {
    x.push(left, right, right, left);
    y.push(stats.max[start], stats.max[start], Math.max(floor, stats.min[start]), Math.max(floor, stats.min[start]));
    return;
  }
  for (let at = start; at <= end; at++) (x.push(centre(table, at)), y.push(stats.max[at]));
  for (let at = end; at >= start; at--) (x.push(centre(table, at)), y.push(Math.max(floor, stats.min[at])));
}

/**
 * The lowest and highest finite value of a series in a span (above `floor`, exclusive), or null.
 * @param {Stats | undefined} stats @param {Span} span @param {number} [floor] @returns {[number, number] | null}
 */
export function extent(stats, { from, to }, floor = -Infinity) {
  let low = Infinity;
  let high = -Infinity;
  for (let at = from; stats && at < to; at++) {
    if (!stats.count[at]) continue;
    const bottom = stats.min[at] > floor ? stats.min[at] : stats.mean[at];
    if (bottom > floor && bottom < low) low = bottom;
    if (stats.max[at] > floor && stats.max[at] > high) high = stats.max[at];
  }
  return low <= high ? [low, high] : null;
}
