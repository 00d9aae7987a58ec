// @ts-check
/** What is known of a run besides its numbers: clip strategy, attempts, config, host. */

import { h } from "../dom.js";
import { formatCount, formatSteps, formatTime } from "../format.js";
import { runAddressOf } from "../route.js";
import { stateChip } from "./status.js";

/** @typedef {import("../state.js").Run} Run */

export class FactsPanel {
  constructor() {
    this.body = h("div", { className: "facts-body" });
    this.element = h(
      "section",
      { className: "card facts", "aria-label": "Run" },
      h("header", {}, h("h2", {}, "Run")),
      this.body,
    );
    this.shown = "";
  }

  /** @param {import("../state.js").State} state */
  update(state) {
    const { run, route } = state;
    if (!run || route.name !== "run") return;
    const key = JSON.stringify([
      run.name,
      run.project,
      run.group,
      run.tags,
      run.config,
      run.clip,
      run.host,
      run.layers?.length,
      run.started_at,
      run.attempts?.map(({ number, state: word, start_step }) => [number, word, start_step]),
      route.attempt,
    ]);
    if (key === this.shown) return;
    this.shown = key;
    this.body.replaceChildren(
      pairs({
        Project: run.project,
        Group: run.group,
        Tags: run.tags.join(", "),
        Started: formatTime(run.started_at),
        Clip: describeClip(run),
        Layers: run.layers ? describeLayers(run.layers) : null,
        Ranks: run.ranks.length > 1 ? run.ranks.join(", ") : null,
      }),
      ...attempts(run, route.attempt),
      ...section("Config", run.config),
      ...section("Host", run.host),
    );
  }
}

/** @param {Record<string, any>} facts */
const pairs = (facts) =>
  h(
    "dl",
    { className: "pairs" },
    Object.entries(facts)
      .filter(([, value]) => value !== null && value !== undefined && value !== "")
      .map(([name, value]) =>
        h("div", {}, h("dt", {}, name), h("dd", {}, typeof value === "object" ? JSON.stringify(value) : String(value))),
      ),
  );

/** @param {string} title @param {Record<string, any> | undefined} facts */
const section = (title, facts) =>
  facts && Object.keys(facts).length
    ? [h("details", { open: title === "Config" }, h("summary", {}, title), pairs(facts))]
    : [];

/** @param {import("../state.js").Layer[]} layers */
function describeLayers(layers) {
  const parameters = layers.reduce((sum, { numel }) => sum + numel, 0);
  return `${formatCount(layers.length)} (${formatCount(parameters)} parameters)`;
}

/** @param {Run} run */
function describeClip(run) {
  if (!run.clip || run.clip.strategy === "MeasureOnly") return "none (measured only)";
  const { strategy, ...rest } = run.clip;
  return `${strategy ?? "unknown"} ${Object.entries(rest)
    .filter(([, value]) => value !== null)
    .map(([name, value]) => `${name}=${value}`)
    .join(", ")}`.trim();
}

/** Each life of the run, as a link to its steps alone. @param {Run} run @param {number | null} chosen */
function attempts(run, chosen) {
  const list = run.attempts ?? [];
  if (list.length < 2) return [];
  const item = (/** @type {number | null} */ number, /** @type {(string | Node)[]} */ ...content) =>
    h(
      "li",
      {},
      h("a", { href: runAddressOf(run.id, number), "aria-current": number === chosen ? "true" : null }, ...content),
    );
  return [
    h(
      "details",
      { open: true },
      h("summary", {}, `Attempts (${list.length})`),
      h(
        "ul",
        { className: "attempts" },
        item(null, "All attempts"),
        list.map((attempt) =>
          item(
            attempt.number,
            `${attempt.number}: `,
            attempt.last_step === null
              ? `from step ${formatCount(attempt.start_step)}`
              : formatSteps(attempt.start_step, attempt.last_step),
            " ",
            stateChip(attempt.state),
          ),
        ),
      ),
    ),
  ];
}
