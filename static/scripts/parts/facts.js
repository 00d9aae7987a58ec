// @ts-check
/** What is known of a run besides its charts: clip strategy, attempts, config, host. */

import { describeClip, describeLimit, describeSampling } from "../clip.js";
import { h, setText } from "../dom.js";
import { formatCount, formatSteps, formatTime } from "../format.js";
import { runAddressOf } from "../route.js";
import { newest } from "../series.js";
import { stateChip } from "./status.js";

/** @typedef {import("../state.js").Run} Run */

export class FactsPanel {
  constructor() {
    // Apart from the rest, which is built anew when it changes: these go on with the steps.
    this.moving = { Threshold: fact("Threshold"), Measuring: fact("Measuring beside the norms") };
    this.movingList = h(
      "dl",
      { className: "pairs" },
      Object.values(this.moving).map(({ row }) => row),
    );
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
    show(this.moving.Threshold, describeLimit(run.clip, newest(state.tail.table, "threshold")));
    show(this.moving.Measuring, describeSampling(state.view.table));
    this.movingList.hidden = Object.values(this.moving).every(({ row }) => row.hidden);
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
        Clip: describeClip(run.clip),
        Layers: run.layers ? describeLayers(run.layers) : null,
        Ranks: run.ranks.length > 1 ? run.ranks.join(", ") : null,
      }),
      this.movingList,
      ...attempts(run, route.attempt),
      ...section("Config", run.config),
      ...section("Host", run.host),
    );
  }
}

/** A fact that comes and goes. @param {string} name */
function fact(name) {
  const value = h("dd");
  return { row: h("div", { hidden: true }, h("dt", {}, name), value), value };
}

/** @param {ReturnType<typeof fact>} fact @param {string} text */
function show({ row, value }, text) {
  row.hidden = !text;
  setText(value, text);
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
