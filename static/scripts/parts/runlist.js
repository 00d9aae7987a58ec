// @ts-check
/** The list of runs: how each one fares, newest first, live. */

import { h, icon, setText, svg } from "../dom.js";
import { formatAge, formatCount, parseNumber } from "../format.js";
import { runAddressOf } from "../route.js";
import { runWord } from "../state.js";
import { dataAge, stateChip, stateReason } from "./status.js";

/** @typedef {import("../state.js").State} State */
/** @typedef {import("../state.js").Run} Run */

export const USAGE = `import gradwatch

monitor = gradwatch.watch(model, optimizer, clip=1.0, project="lm", name="baseline")
for batch in loader:
    optimizer.zero_grad()
    loss = criterion(model(batch.x), batch.y)
    loss.backward()
    monitor.clip(loss)  # measures, clips, records
    optimizer.step()
monitor.finish()`;

export class RunList {
  /** @param {import("./panel.js").Context} context */
  constructor({ actions }) {
    this.actions = actions;
    this.search = h("input", {
      type: "search",
      placeholder: "Search runs",
      "aria-label": "Search runs",
      autocomplete: "off",
      onInput: () => actions.search(this.search.value),
    });
    this.count = h("span", { className: "count" });
    this.rows = h("tbody");
    const columns = ["State", "Run", "Last step", "Loss", "Alerts", "Last data"];
    this.table = h(
      "table",
      { className: "runs" },
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          columns.map((name) => h("th", { scope: "col" }, name)),
        ),
      ),
      this.rows,
    );
    this.more = h("button", { className: "quiet", onClick: () => actions.more() }, "Show more");
    this.empty = h("div", { className: "card nothing" });
    this.element = h(
      "main",
      { className: "list" },
      h("div", { className: "list-head" }, h("h1", {}, "Runs"), this.count, this.search),
      this.table,
      this.empty,
      this.more,
    );
    /** @type {Map<string, RunRow>} */ this.known = new Map();
    this.mood = "";
  }

  /** @param {State} state */
  update(state) {
    if (state.route.name !== "list") return;
    const { list, route, problem } = state;
    if (document.activeElement !== this.search && this.search.value !== route.query) this.search.value = route.query;
    setText(this.count, list.loaded ? `${formatCount(list.total)} in all` : "");
    this.table.hidden = !list.runs.length;
    this.more.hidden = list.runs.length >= list.total;
    this.showRows(state);
    const mood = problem
      ? `problem ${problem.text}`
      : list.runs.length
        ? ""
        : !list.loaded
          ? "loading"
          : route.query
            ? `query ${route.query}`
            : "first";
    if (mood !== this.mood) this.empty.replaceChildren(...this.emptyWords(mood, route.query, problem?.text ?? ""));
    this.mood = mood;
    this.empty.hidden = !mood;
  }

  /** @param {State} state */
  showRows(state) {
    const ids = new Set(state.list.runs.map(({ id }) => id));
    for (const [id, row] of this.known) if (!ids.has(id)) (row.element.remove(), this.known.delete(id));
    state.list.runs.forEach((run, at) => {
      const row = this.known.get(run.id) ?? new RunRow(run.id);
      this.known.set(run.id, row);
      row.update(state, run);
      if (this.rows.children[at] !== row.element) this.rows.insertBefore(row.element, this.rows.children[at] ?? null);
    });
  }

  /** @param {string} mood @param {string} query @param {string} problem */
  emptyWords(mood, query, problem) {
    if (mood === "loading") return [h("p", {}, "Loading the runs…")];
    if (mood.startsWith("problem"))
      return [
        h("h2", {}, "The runs could not be loaded"),
        h("p", {}, problem),
        h("button", { className: "quiet", onClick: () => this.actions.reload() }, "Try again"),
      ];
    if (mood.startsWith("query"))
      return [
        h("h2", {}, `No run matches “${query}”`),
        h("p", {}, "The search looks at names, projects and tags."),
        h("button", { className: "quiet", onClick: () => this.actions.search("") }, "Clear the search"),
      ];
    const copy = h(
      "button",
      {
        className: "quiet small copy",
        onClick: async () => {
          await navigator.clipboard?.writeText(USAGE).catch(() => {});
          copy.textContent = "Copied";
          setTimeout(() => (copy.textContent = "Copy"), 1500);
        },
      },
      "Copy",
    );
    return [
      h("h2", {}, icon("waiting"), " Waiting for the first run"),
      h("p", {}, "Put these lines into a training script and start it; the run appears here by itself."),
      h("div", { className: "code" }, copy, h("pre", {}, h("code", {}, USAGE))),
      h(
        "p",
        { className: "small" },
        "A script on this machine finds this server by itself. ",
        "From another one, set GRADWATCH_SERVER (and GRADWATCH_TOKEN).",
      ),
    ];
  }
}

class RunRow {
  /** @param {string} id */
  constructor(id) {
    this.link = h("a", { href: runAddressOf(id) });
    this.project = h("span", { className: "project" });
    this.state = h("td", { className: "cell-state" });
    this.step = h("td", { className: "cell-step number" });
    this.spark = h("td", { className: "cell-spark" });
    this.alerts = h("td", { className: "cell-alerts" });
    this.age = h("td", { className: "cell-age number" });
    this.element = h(
      "tr",
      {
        onClick: (/** @type {MouseEvent} */ event) =>
          event.target instanceof HTMLAnchorElement || getSelection()?.toString() || this.link.click(),
      },
      this.state,
      h("td", { className: "cell-name" }, this.link, this.project),
      this.step,
      this.spark,
      this.alerts,
      this.age,
    );
    /** @type {Run | null} */ this.shown = null;
  }

  /** @param {State} state @param {Run} run */
  update(state, run) {
    setText(this.age, formatAge(dataAge(state, run)));
    if (run === this.shown) return;
    if (run.sparkline !== this.shown?.sparkline) this.spark.replaceChildren(sparkline(run.sparkline ?? []));
    this.shown = run;
    this.state.replaceChildren(stateChip(runWord(run)));
    this.state.title = stateReason(run);
    setText(this.link, run.name || run.id);
    setText(this.project, [run.project, ...run.tags].filter(Boolean).join(" · "));
    setText(this.step, formatCount(run.last_step) + (run.total_steps ? ` / ${formatCount(run.total_steps)}` : ""));
    this.alerts.replaceChildren(
      run.alerts?.open ? h("span", { className: "chip chip-alert" }, icon("critical"), `${run.alerts.open} open`) : "–",
    );
  }
}

/** The loss over the run, small. @param {unknown[]} values */
function sparkline(values) {
  const points = values.map(parseNumber);
  const finite = /** @type {number[]} */ (points.filter((value) => Number.isFinite(value)));
  const [low, high] = [Math.min(...finite), Math.max(...finite)];
  const drawing = svg("svg", {
    viewBox: "0 0 120 28",
    class: "sparkline",
    role: "img",
    "aria-label": finite.length
      ? `Loss from ${finite[0].toPrecision(3)} to ${finite[finite.length - 1].toPrecision(3)}`
      : "No loss yet",
  });
  const x = (/** @type {number} */ at) => 2 + (at / Math.max(1, points.length - 1)) * 116;
  const y = (/** @type {number} */ value) => 25 - ((value - low) / (high - low || 1)) * 22;
  let path = "";
  points.forEach((value, at) => {
    if (value === null || !Number.isFinite(value)) return;
    path += `${path && Number.isFinite(points[at - 1]) ? "L" : "M"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`;
  });
  drawing.append(
    svg("path", { d: path, fill: "none", stroke: "currentColor", "stroke-width": 1.5, "stroke-linejoin": "round" }),
  );
  return drawing;
}
