// @ts-check
/** Asks the running training for another threshold, a checkpoint or its end; only where its script allows it. */

import { askedWords, commandsOf, lastOutcome, thresholdIn } from "../commands.js";
import { h, setText } from "../dom.js";

/** @typedef {import("../state.js").State} State */

export class CommandsCard {
  /** @param {import("./panel.js").Context} context */
  constructor({ actions }) {
    this.actions = actions;
    /** @type {import("../commands.js").Asked | null} */ this.asked = null;
    /** @type {State["events"]} */ this.events = [];
    this.run = "";
    const button = (/** @type {string} */ words, /** @type {() => void} */ act, className = "") =>
      h("button", { type: "button", className, onClick: act }, words);
    this.value = h("input", { type: "number", min: "0", step: "any", inputmode: "decimal", placeholder: "above 0" });
    this.set = h("button", { type: "submit" }, "Set");
    this.value.addEventListener("input", () => this.show());
    this.threshold = h(
      "form",
      { className: "command-threshold", onSubmit: (/** @type {Event} */ event) => this.submit(event) },
      h("label", {}, "Threshold", this.value),
      this.set,
    );
    this.checkpoint = button("Save a checkpoint", () => this.ask({ command: "checkpoint" }));
    this.stop = button("Stop the training…", () => this.confirm(true));
    this.yes = button("Stop it", () => this.end(), "danger");
    this.question = h(
      "div",
      { className: "command-question", role: "group", "aria-label": "Stop the training?", hidden: true },
      h("p", {}, "Its loop ends at its next step, on every rank. This cannot be taken back."),
      this.yes,
      button("Let it run", () => this.confirm(false)),
    );
    this.words = h("p", { className: "command-words", role: "status" });
    this.element = h(
      "section",
      { className: "card commands-card", "aria-label": "Ask the training", hidden: true },
      h("header", {}, h("h2", {}, "Ask the training")),
      h("div", { className: "commands" }, this.threshold, this.checkpoint, this.stop, this.question, this.words),
    );
  }

  /** @param {State} state */
  update({ run, events }) {
    const commands = commandsOf(run);
    if ((run?.id ?? "") !== this.run) {
      this.run = run?.id ?? "";
      this.asked = null;
      this.confirm(false);
    }
    this.events = events;
    this.element.hidden = !commands.length && !this.asked;
    this.threshold.hidden = !commands.includes("set_threshold");
    this.checkpoint.hidden = !commands.includes("checkpoint");
    this.stop.hidden = !commands.includes("stop") || !this.question.hidden;
    if (!commands.includes("stop")) this.question.hidden = true;
    this.show();
  }

  show() {
    const busy = this.asked?.phase === "sending";
    this.set.disabled = busy || thresholdIn(this.value.value) === null;
    for (const button of [this.checkpoint, this.stop, this.yes]) button.disabled = busy;
    setText(this.words, askedWords(this.asked, this.events));
    this.words.classList.toggle("problem", this.asked?.phase === "refused");
  }

  /** @param {Event} event */
  submit(event) {
    event.preventDefault();
    const value = thresholdIn(this.value.value);
    if (value !== null) this.ask({ command: "set_threshold", value });
  }

  /** @param {boolean} asks */
  confirm(asks) {
    const held = this.question.contains(document.activeElement) || document.activeElement === this.stop;
    this.question.hidden = !asks;
    this.stop.hidden = asks;
    if (held) (asks ? this.yes : this.stop).focus();
  }

  end() {
    this.confirm(false);
    this.ask({ command: "stop" });
  }

  /** @param {{command: string, value?: number}} wanted */
  async ask(wanted) {
    const { run } = this;
    const tell = (/** @type {"sending" | "asked" | "refused"} */ phase, text = "") => {
      if (run !== this.run) return;
      this.asked = { phase, text, before: this.asked?.before ?? null };
      this.show();
    };
    this.asked = { phase: "sending", text: "", before: lastOutcome(this.events) };
    this.show();
    const answer = await this.actions.command(run, wanted, (why) => tell("refused", why));
    if (answer) tell("asked");
    else if (this.asked.phase === "sending") tell("refused", "The server could not be asked.");
  }
}
