// What may be asked of a training, and what is said of it.
import assert from "node:assert/strict";
import { test } from "node:test";
import { askedWords, commandsOf, lastOutcome, thresholdIn } from "../../static/scripts/commands.js";
import { refusalOf } from "../../static/scripts/landscape.js";

const event = (change = {}) => ({ kind: "control", name: "control", step: 7, time: 1, text: "stop: done", ...change });

test("commands are offered while the run goes on, and surfaces elsewhere", () => {
  const commands = ["set_threshold", "stop", "probe_landscape"];
  assert.deepEqual(commandsOf({ state: "running", commands }), ["set_threshold", "stop"]);
  assert.deepEqual(commandsOf({ state: "finished", commands }), []);
  assert.deepEqual(commandsOf({ state: "running" }), []);
  assert.deepEqual(commandsOf(null), []);
});

test("a threshold is a finite number above 0", () => {
  assert.deepEqual(["0.5", " 2 ", "1e-3"].map(thresholdIn), [0.5, 2, 0.001]);
  assert.deepEqual(["", " ", "0", "-1", "x", "Infinity", "1e999", "NaN"].map(thresholdIn), Array(8).fill(null));
});

test("what became of a command is what the training said after it was asked", () => {
  const before = event({ step: 3, text: "set_threshold: from 1 to 2" });
  const asking = event({ name: "stop", step: 6, text: "the end of the training, asked for from here" });
  assert.equal(lastOutcome([before, asking]), before);
  assert.equal(lastOutcome([asking, event({ kind: "user" })]), null);
  const asked = { phase: "asked", text: "", before };
  assert.match(askedWords(asked, [before, asking]), /^Asked/);
  assert.equal(askedWords(asked, [before, asking, event()]), "Step 7: stop: done");
  assert.equal(askedWords({ ...asked, before: null }, [event()]), "Step 7: stop: done");
  assert.equal(askedWords({ ...asked, phase: "refused", text: "not connected" }, [event()]), "not connected");
  assert.equal(askedWords({ ...asked, phase: "sending" }, []), "Asking…");
  assert.equal(askedWords(null, [event()]), "");
});

test("a run without a probe takes no surface", () => {
  assert.match(refusalOf({ state: "running", control: true, commands: ["stop"] }), /probe=/);
  assert.equal(refusalOf({ state: "running", control: true, commands: ["probe_landscape"] }), "");
});
