// @ts-check
/**
 * The landscape tape as columns and rows: where each probe and each alpha has its cell, and the lines over them. Pure.
 */

import { finiteExtent } from "./axes.js";

/** @typedef {import("./landscape.js").Probe} Probe */
/** @typedef {import("./landscape.js").Value} Value */
/** @typedef {{probe: Probe, from: number, to: number}} Column steps from..to that stand for one probe */

const MOST_WIDTHS = 1.5; // of the usual distance of probes: a column ends where probing paused

/**
 * The steps that each probe stands for: half way to its neighbours, but not over a pause.
 * @param {Probe[]} probes @returns {Column[]}
 */
export function columnsOf(probes) {
  const sorted = [...probes].sort((a, b) => a.step - b.step);
  const gaps = sorted.slice(1).map(({ step }, at) => step - sorted[at].step);
  const usual = [...gaps].sort((a, b) => a - b)[Math.floor(gaps.length / 2)] || 1;
  const half = (/** @type {number | undefined} */ gap) =>
    gap === undefined || gap > MOST_WIDTHS * usual ? usual / 2 : gap / 2;
  return sorted.map((probe, at) => ({
    probe,
    from: probe.step - half(gaps[at - 1]),
    to: probe.step + half(gaps[at]),
  }));
}

/** The borders between the cells of an uneven grid: half way, and as far beyond both ends. @param {number[]} values */
export function edgesOf(values) {
  if (values.length < 2) return values.length ? [values[0] - 0.5, values[0] + 0.5] : [];
  const between = values.slice(1).map((value, at) => (value + values[at]) / 2);
  return [2 * values[0] - between[0], ...between, 2 * values[values.length - 1] - between[between.length - 1]];
}

/**
 * The column at a step, or the nearest one within a column's width; else null.
 * @param {Column[]} columns @param {number} step
 */
export function columnNear(columns, step) {
  /** @type {Column | null} */ let best = null;
  for (const column of columns)
    if (!best || Math.abs(column.probe.step - step) < Math.abs(best.probe.step - step)) best = column;
  if (!best) return null;
  const reach = Math.max(1, best.to - best.from);
  return step >= best.from - reach && step <= best.to + reach ? best : null;
}

/** How much the loss changes from the weights before the step. @param {Probe} probe @returns {Value[]} */
export function changes({ loss, base }) {
  return loss.map((value) => (value === null || base === null ? null : value - base));
}

/** @typedef {"at" | "beyond" | "at once" | "unknown"} Bracket */

/**
 * The critical step in units of the step taken: halfway between the alpha up to which the loss does not rise and the
 * one where it does; "beyond" where it does not rise up to that alpha, "at once" where it does at the smallest tried.
 * @param {Pick<Probe, "critical_low" | "critical_high">} probe @returns {{alpha: number, bracket: Bracket}}
 */
export function criticalOf({ critical_low: low, critical_high: high }) {
  if (low === null || high === null || Number.isNaN(low) || Number.isNaN(high))
    return { alpha: NaN, bracket: "unknown" };
  if (high === Infinity) return { alpha: low, bracket: "beyond" };
  return low === 0 ? { alpha: high, bracket: "at once" } : { alpha: (low + high) / 2, bracket: "at" };
}

/**
 * The critical step as a line within the tape's alphas, and the marks at its edge where it lies outside or is not
 * known to lie inside.
 * @param {Column[]} columns @param {number} highest alpha that is drawn
 */
export function criticalLine(columns, highest) {
  const line = { x: /** @type {number[]} */ ([]), y: /** @type {(number | null)[]} */ ([]) };
  const beyond = /** @type {number[]} */ ([]);
  const atOnce = { x: /** @type {number[]} */ ([]), y: /** @type {number[]} */ ([]) };
  for (const { probe } of columns) {
    const { alpha, bracket } = criticalOf(probe);
    const inside = (bracket === "at" || bracket === "at once") && alpha <= highest;
    line.x.push(probe.step);
    line.y.push(inside ? alpha : null);
    if (bracket === "beyond" || (bracket === "at" && !inside)) beyond.push(probe.step);
    if (bracket === "at once" && inside) (atOnce.x.push(probe.step), atOnce.y.push(alpha));
  }
  return { line, beyond, atOnce };
}

/**
 * Sharpness and threshold over the steps for a log axis; what is not positive and finite is a gap.
 * @param {Probe[]} probes
 */
export function sharpnessLines(probes) {
  const drawable = (/** @type {Value} */ value) =>
    value !== null && value > 0 && Number.isFinite(value) ? value : null;
  const sorted = [...probes].sort((a, b) => a.step - b.step);
  const x = sorted.map(({ step }) => step);
  const sharpness = sorted.map((probe) => drawable(probe.sharpness));
  const threshold = sorted.map((probe) => drawable(probe.stability_threshold));
  return { x, sharpness, threshold, extent: finiteExtent([...sharpness, ...threshold]) };
}
