// @ts-check
/**
 * The page of one run: status, charts over shared steps, alerts and facts; or, in words, why there is nothing to
 * show.
 */

import { h, icon, setText } from "../dom.js";
import { onThemeChange } from "../theme.js";
import { cursorInView } from "../visible.js";
import { AlertsPanel } from "./alerts.js";
import { CommandsCard } from "./commands.js";
import { FactsPanel } from "./facts.js";
import { heatmapPanel } from "./heatmap.js";
import { LandscapeSection } from "./landscape.js";
import { lanePanel } from "./lane.js";
import { lossPanel } from "./loss.js";
import { normPanel } from "./norm.js";
import { HookNotes } from "./notes.js";
import { otherPanel } from "./other.js";
import { Panel } from "./panel.js";
import { ratioPanel } from "./ratio.js";
import { StatusBar } from "./status.js";
import { Toolbar } from "./toolbar.js";

/** @typedef {import("../state.js").State} State */

export class RunPage {
  /** @param {import("./panel.js").Context} context */
  constructor(context) {
    this.context = context;
    /** @type {State | null} */ this.drawn = null;
    const [loss, other] = [lossPanel(), otherPanel()];
    this.panels = [loss, normPanel(), ratioPanel(), lanePanel(), heatmapPanel(), other].map(
      (spec) => new Panel(context, spec),
    );
    loss.watch(() => this.panels[0].mark(true));
    other.watch(() => this.panels[5].mark(true));
    this.landscape = new LandscapeSection(context);
    this.parts = [
      new StatusBar(),
      new Toolbar(context),
      new AlertsPanel(context),
      new HookNotes(context),
      new CommandsCard(context),
      new FactsPanel(),
    ];
    const [status, toolbar, alerts, notes, commands, facts] = this.parts.map(({ element }) => element);
    this.waiting = h("div", { className: "card nothing", hidden: true });
    this.charts = h(
      "div",
      { className: "charts card" },
      this.panels.map(({ element }) => element),
    );
    this.page = h(
      "div",
      { className: "run-grid" },
      status,
      h("div", { className: "run-main" }, toolbar, this.waiting, this.charts, this.landscape.element),
      h("aside", { className: "run-side" }, alerts, notes, commands, facts),
    );
    this.problem = h("div", { className: "card nothing", hidden: true });
    this.element = h("main", { className: "run" }, this.problem, this.page);
    this.words = "";
    onThemeChange(() => {
      this.panels.forEach((panel) => panel.mark(true));
      this.landscape.repaint();
    });
  }

  /** Pixels across a plot: as many columns are asked for. */
  plotWidth() {
    return this.panels[0].area().width;
  }

  /** @param {State} state */
  update(state) {
    this.showProblem(state);
    this.page.hidden = Boolean(state.problem) || !state.run;
    if (this.page.hidden) return;
    for (const part of this.parts) part.update(state);
    const steps = state.view.table.first.length;
    this.charts.hidden = !steps;
    this.waiting.hidden = Boolean(steps);
    if (!steps) this.showWaiting(state);
    const inStep = this.inStep(state);
    const shown = { ...inStep, cursor: cursorInView(inStep) };
    for (const panel of this.panels) panel.update(shown);
    this.landscape.update(shown);
  }

  /**
   * The state the panels draw. They take turns, so new steps wait until all have drawn the last ones: else no two would
   * show the same steps at the same place.
   * @param {State} state @returns {State}
   */
  inStep(state) {
    const { drawn } = this;
    const urgent =
      !drawn ||
      drawn.route !== state.route ||
      drawn.view.loading !== state.view.loading ||
      drawn.panning !== state.panning;
    if (urgent || !this.panels.some((panel) => this.context.pacer.isDue(panel))) return (this.drawn = state);
    return { ...state, view: drawn.view, events: drawn.events, run: drawn.run };
  }

  /** @param {State} state */
  showProblem({ problem, run }) {
    const words = problem ? problem.text : run ? "" : "Loading the run…";
    this.problem.hidden = !words;
    if (words === this.words) return;
    this.words = words;
    const titles = {
      unknown: "There is no such run",
      deleted: "This run was deleted",
      server: "The server could not answer",
    };
    this.problem.replaceChildren(
      ...(problem
        ? [h("h2", {}, icon("lost"), ` ${titles[problem.kind]}`), h("p", {}, words), h("a", { href: "#/" }, "All runs")]
        : [h("p", {}, words)]),
    );
  }

  /** @param {State} state */
  showWaiting({ run, view, route }) {
    const zoomed = route.name === "run" && route.view.mode !== "all";
    const words = view.loading
      ? "Loading the steps…"
      : run?.last_step !== null
        ? `There are no steps in this view.${zoomed ? " Reset zoom shows the whole run." : ""}`
        : run?.state === "running"
          ? "The run has begun; waiting for its first step. It appears here by itself."
          : "The run ended before its first step.";
    if (!this.waiting.firstChild) this.waiting.append(h("p"));
    setText(/** @type {Element} */ (this.waiting.firstChild), words);
  }

  destroy() {
    for (const panel of this.panels) panel.destroy();
    this.landscape.destroy();
  }
}
