// @ts-check
/** What may be asked of a running training, and what became of it. Pure. */

/** @typedef {import("./state.js").Event} Event */

/**
 * @typedef {object} Asked a command of this page
 * @property {"sending" | "asked" | "refused"} phase @property {string} text why it was refused
 * @property {Event | null} before the last thing the training had said of commands by then
 */

/**
 * The commands that can be given now; surfaces are asked for where they are shown.
 * @param {import("./state.js").Run | null} run
 */
export const commandsOf = (run) =>
  run?.state === "running" ? (run.commands ?? []).filter((name) => name !== "probe_landscape") : [];

/** The last thing a training has said of commands. @param {Event[]} events @returns {Event | null} */
export const lastOutcome = (events) =>
  events.findLast(({ kind, name }) => kind === "control" && name === "control") ?? null;

/** @param {string} text of a field @returns {number | null} the threshold, where it is one */
export function thresholdIn(text) {
  const value = text.trim() === "" ? NaN : Number(text);
  return Number.isFinite(value) && value > 0 ? value : null;
}

/** Where a command is. @param {Asked | null} asked @param {Event[]} events */
export function askedWords(asked, events) {
  if (!asked) return "";
  if (asked.phase === "refused") return asked.text;
  if (asked.phase === "sending") return "Asking…";
  const outcome = lastOutcome(events);
  const isNew = outcome && !(asked.before && isSame(outcome, asked.before));
  return isNew ? `Step ${outcome.step}: ${outcome.text}` : "Asked; it is done within the training's next steps.";
}

/** @param {Event} one @param {Event} other */
const isSame = (one, other) => one.step === other.step && one.time === other.time && one.text === other.text;
