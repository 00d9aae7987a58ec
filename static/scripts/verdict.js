// @ts-check
/** Whether clipping helped, in words with its uncertainty. Pure. */

import { formatCount, formatValue } from "./format.js";

/** @typedef {import("./landscape.js").Verdict} Verdict */
/** @typedef {import("./landscape.js").ClipEvent} ClipEvent */
/** @typedef {{tone: "helped" | "hurt" | "inconclusive" | "none", title: string, words: string}} Told */

/** @type {Record<string, string>} */
const TITLES = { helped: "Clipping helped", hurt: "Clipping hurt", inconclusive: "Inconclusive" };

/** @param {number | null} value @param {number | null} error */
const withError = (value, error) =>
  `${formatValue(value, 3)}${error !== null && Number.isFinite(error) ? ` ± ${formatValue(error, 2)}` : " (standard error unknown)"}`;

/** The verdict over the run. @param {Verdict | undefined} verdict @returns {Told} */
export function tellVerdict(verdict) {
  if (verdict?.unsupported) return { tone: "none", title: "Not supported", words: `Not supported: ${verdict.unsupported}` };
  const overall = verdict?.overall;
  if (!overall?.count) return { tone: "none", title: "No clip was probed yet", words: "A verdict needs clipped steps that were probed." };
  const { outcome, mean, standard_error: error } = overall;
  const lower = { helped: "lower", hurt: "higher" }[/** @type {string} */ (outcome)];
  const size = mean === null ? null : Math.abs(mean);
  const words = lower
    ? `After a clipped step the held-out loss was ${lower} than after the raw one, by ${withError(size, error)} on average.`
    : `Raw less clipped held-out loss was ${withError(mean, error)} on average: too close to tell.`;
  return { tone: outcome, title: TITLES[outcome], words };
}

/** How many of the probed clips did what. @param {Verdict | undefined} verdict */
export function countWords(verdict) {
  const overall = verdict?.overall;
  if (!overall?.count) return "";
  const { helped, hurt, inconclusive, count } = overall;
  return `Of ${formatCount(count)} probed clips ${formatCount(helped)} helped, ${formatCount(hurt)} hurt, ${formatCount(inconclusive)} inconclusive.`;
}

/** @param {ClipEvent} event */
export const eventWords = ({ step, difference, standard_error: error, batches, outcome }) =>
  `step ${formatCount(step)}: raw less clipped ${withError(difference, error)} over ${formatCount(batches)} ${batches === 1 ? "batch" : "batches"}, ${outcome}`;
