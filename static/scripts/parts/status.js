// @ts-check
/** The status bar: is it fine now? */

import { limitsTotalNorm } from "../clip.js";
import { h, icon, setText } from "../dom.js";
import { formatAge, formatCount, formatDuration, formatRate, formatShare, formatValue } from "../format.js";
import { meanOf, newest } from "../series.js";
import { nonfiniteSteps, runWord } from "../state.js";
import { clipShare } from "./ratio.js";

/** @typedef {import("../state.js").State} State */
/** @typedef {import("../state.js").Run} Run */

/** The state of a run as shape, word and colour. @param {string} word */
export const stateChip = (word) => h("span", { className: `chip chip-${word}` }, icon(word), word);

/** Why a run is in its state, as a sentence; empty while it runs. @param {Run} run */
export function stateReason(run) {
  if (runWord(run) === "waiting") return "waiting for the first step";
  if (run.state === "failed") return run.reason || "no reason was given";
  if (run.state === "lost") return run.reason || "the training went silent without saying goodbye";
  return run.state === "finished" && run.reason !== "finished" ? (run.reason ?? "") : "";
}

/** Seconds since the last data of a run, by the server's clock. @param {State} state @param {Run} run */
export const dataAge = (state, run) =>
  run.updated_at === null ? null : Math.max(0, state.now + state.offset - run.updated_at);

const TILES = /** @type {const} */ ([
  "Step",
  "Time left",
  "Speed",
  "Loss",
  "Norm / threshold",
  "Clipped, last 200",
  "Non-finite",
  "Last data",
]);

export class StatusBar {
  constructor() {
    this.chip = h("div", { className: "status-state" });
    this.reason = h("p", { className: "status-reason" });
    this.progress = h("progress", { max: "1", "aria-label": "Progress" });
    /** @type {Record<string, {tile: HTMLElement, value: HTMLElement, note: HTMLElement}>} */ this.tiles = {};
    const tiles = TILES.map((label) => {
      const [value, note] = [h("span", { className: "tile-value" }), h("span", { className: "tile-note" })];
      const tile = h("div", { className: "tile" }, h("dt", {}, label), h("dd", {}, value, note));
      this.tiles[label] = { tile, value, note };
      return tile;
    });
    this.tiles.Step.tile.append(this.progress);
    this.element = h(
      "section",
      { className: "status card", "aria-label": "Status" },
      h("div", { className: "status-lead" }, this.chip, this.reason),
      h("dl", { className: "tiles" }, tiles),
    );
    this.word = "";
  }

  /** @param {State} state */
  update(state) {
    const { run } = state;
    if (!run) return;
    const word = runWord(run);
    if (word !== this.word) this.chip.replaceChildren(stateChip(word));
    this.word = word;
    setText(this.reason, stateReason(run));
    this.showProgress(run);
    this.showSpeed(state, run);
    this.showNumbers(state);
    this.set("Last data", formatAge(dataAge(state, run)));
  }

  /** @param {typeof TILES[number]} label @param {string} value @param {string} [note] @param {string} [tone] */
  set(label, value, note = "", tone = "") {
    const tile = this.tiles[label];
    setText(tile.value, value);
    setText(tile.note, note);
    tile.tile.className = `tile ${tone}`;
  }

  /** @param {Run} run */
  showProgress(run) {
    const done = run.last_step === null ? 0 : run.last_step + 1;
    this.set("Step", formatCount(run.last_step), run.total_steps ? `of ${formatCount(run.total_steps)}` : "");
    this.progress.hidden = !run.total_steps;
    if (run.total_steps) this.progress.value = Math.min(1, done / run.total_steps);
  }

  /** @param {State} state @param {Run} run */
  showSpeed(state, run) {
    const seconds = meanOf(state.tail.table, "step_seconds");
    this.set("Speed", formatRate(seconds));
    const left = run.total_steps && run.last_step !== null ? run.total_steps - run.last_step - 1 : null;
    if (run.state !== "running")
      this.set(
        "Time left",
        "–",
        run.started_at && run.ended_at ? `took ${formatDuration(run.ended_at - run.started_at)}` : "",
      );
    else
      this.set(
        "Time left",
        left !== null && seconds ? formatDuration(left * seconds) : "–",
        run.total_steps ? "" : "length unknown",
      );
  }

  /** @param {State} state */
  showNumbers(state) {
    const { table } = state.tail;
    const [loss, norm] = [newest(table, "loss"), newest(table, "total_norm")];
    const tone = (/** @type {number | undefined} */ value) =>
      value !== undefined && !Number.isFinite(value) ? "bad" : "";
    this.set("Loss", formatValue(loss), "", tone(loss));
    const threshold = newest(table, "threshold");
    this.set(
      "Norm / threshold",
      formatValue(norm),
      describeThreshold(state.run, threshold),
      newest(table, "overflowed") ? "" : tone(norm),
    );
    const share = clipShare(table);
    this.set("Clipped, last 200", share.length ? formatShare(share[share.length - 1]) : "–");
    const bad = nonfiniteSteps(state);
    this.set(
      "Non-finite",
      bad === null ? "–" : bad ? `✕ ${formatCount(bad)}` : "0",
      bad === 1 ? "step" : bad === null ? "" : "steps",
      bad ? "bad" : "",
    );
  }
}

/**
 * What stands behind the norm; an infinite threshold is one that never clips.
 * @param {Run | null} run @param {number | undefined} threshold
 */
function describeThreshold(run, threshold) {
  if (!limitsTotalNorm(run?.clip) && threshold !== Infinity) return ""; // another scale: see the facts of the run
  if (threshold === undefined || Number.isNaN(threshold)) return "";
  return threshold === Infinity ? "/ none" : `/ ${formatValue(threshold, 3)}`;
}
