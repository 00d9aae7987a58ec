// @ts-check
/** Whether clipping helped, in words with its uncertainty. Pure. */

import { formatCount, formatValue } from "./format.js";

/** @typedef {import("./landscape.js").Verdict} Verdict */
/** @typedef {import("./landscape.js").ClipEvent} ClipEvent */
/** @typedef {{tone: "helped" | "hurt" | "inconclusive" | "none", title: string, words: string}} Told */

/** @type {Record<string, string>} */
const TITLES = { helped: "Clipping helped", hurt: "Clipping hurt", inconclusive: "Inconclusive" };

/** @param {number | null} value @param {number | null} error */
function withError(value, error) {
  const known = error !== null && Number.isFinite(error);
  return `${formatValue(value, 3)}${known ? ` ± ${formatValue(error, 2)}` : " (standard error unknown)"}`;
}

/** The verdict over the run. @param {Verdict | undefined} verdict @returns {Told} */
export function tellVerdict(verdict) {
  if (verdict?.unsupported)
    return { tone: "none", title: "Not supported", words: `Not supported: ${verdict.unsupported}` };
  const overall = verdict?.overall;
  if (!overall?.count)
    return { tone: "none", title: "No clip was probed yet", words: "A verdict needs clipped steps that were probed." };
  const { outcome, mean, standard_error: error } = overall;
  const lower = { helped: "lower", hurt: "higher" }[/** @type {string} */ (outcome)];
  const size = mean === null ? null : Math.abs(mean);
  const words = lower
    ? `After a clipped step held-out loss was ${lower} than after a raw one: by ${withError(size, error)} on average.`
    : `Raw less clipped held-out loss was ${withError(mean, error)} on average: too close to tell.`;
  return { tone: outcome, title: TITLES[outcome], words };
}

/** How many of the probed clips did what. @param {Verdict | undefined} verdict */
export function countWords(verdict) {
  const overall = verdict?.overall;
  if (!overall?.count) return "";
  const { helped, hurt, inconclusive, count } = overall;
  const each = `${formatCount(helped)} helped, ${formatCount(hurt)} hurt, ${formatCount(inconclusive)} inconclusive`;
  return `Of ${formatCount(count)} probed clips ${each}.`;
}

/** @param {ClipEvent} event */
export function eventWords({ step, difference, standard_error: error, batches, outcome }) {
  const over = `over ${formatCount(batches)} ${batches === 1 ? "batch" : "batches"}`;
  return `step ${formatCount(step)}: raw less clipped ${withError(difference, error)} ${over}, ${outcome}`;
}
