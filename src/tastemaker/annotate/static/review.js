// The reviewer's page: one answer after the other.

import { element, frame, letter, openZoom, unveil, words } from "./parts.js";
import { Refused, post } from "./send.js";
import * as pairs from "./pairs.js";
import * as ranking from "./ranking.js";
import * as stages from "./stages.js";

const preset = { pairs, ranking, imagereward: stages }[words.preset];
const byId = (name) => document.getElementById(name);
let waiting = [], relabelling = null;

function described(answer) {
  const said = [];
  if (answer.choice) said.push({ a: "A is better", b: "B is better", tie: "About equal", both_bad: "Both are bad", skip: "Skipped" }[answer.choice]);
  if (answer.prompt) said.push(`category ${answer.prompt.category}${answer.prompt.problems.length ? `, problems: ${answer.prompt.problems.join(", ")}` : ""}${answer.prompt.unclear ? ", unclear" : ""}`);
  if (answer.ratings) said.push(answer.ratings.map((r, k) => `${letter(k)}: ${words.scales.map((s) => r[s.name]).join("/")}${r.problems.length ? ` (${r.problems.join(", ")})` : ""}`).join(" · "));
  if (answer.slots) said.push(`order: ${answer.slots.map((s, k) => [s, letter(k)]).sort((a, b) => a[0] - b[0]).map(([s, l]) => `${s} ${l}`).join(", ")}`);
  if (answer.harmful) said.push("flagged as harmful");
  return said.join("; ");
}

async function load() {
  const said = await post(`/api/review/${words.project}/queue`);
  waiting = said.waiting;
  byId("progress").textContent = `${said.count} to review`;
  show();
}

function show() {
  relabelling = null;
  const task = waiting[0];
  byId("verdicts").hidden = !task;
  byId("given").textContent = task ? `${task.by} answered: ${described(task.answer)}` : "";
  if (!task) { byId("task").replaceChildren(element("div", { class: "done card" }, element("h2", {}, "Nothing waits for review."))); return; }
  byId("task").replaceChildren(element("p", { class: "prompt" }, task.prompt), element("div", { class: "gallery" }, ...task.pictures.map((_, k) => frame(task, k, { class: task.answer.choice === "ab"[k] ? "chosen" : "" }))));
}

async function decide(verdict, more = {}) {
  const task = waiting[0];
  if (!task) return;
  try {
    await post(`/api/review/${words.project}/decide`, { token: task.token, verdict, ...more });
    byId("saved").textContent = "Saved";
  } catch (error) {
    byId("trouble").textContent = error instanceof Refused ? error.message : "The server does not answer; please try again.";
    byId("trouble").hidden = false;
    return;
  }
  byId("trouble").hidden = true;
  waiting.shift();
  if (waiting.length) { byId("progress").textContent = `${waiting.length} to review`; show(); } else await load();
}

function relabel() {
  const task = waiting[0];
  if (!task) return;
  byId("verdicts").hidden = true;
  const tools = { words, submit: (answer) => decide("relabel", { answer }), part: () => {} };
  relabelling = preset.open(byId("task"), { ...task, draft: task.answer }, tools);
}

const KEYS = { y: () => decide("accept"), n: () => decide("reject"), r: relabel };

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || document.querySelector("dialog[open]")) return;
  if (event.key === "z" && waiting.length) openZoom(waiting[0]);
  else if (event.key === "v" && waiting.length) unveil(waiting[0]);
  else if (relabelling) { if (event.key === "Escape") show(); else if (!relabelling.key(event)) return; }
  else if (event.key in KEYS) KEYS[event.key]();
  else return;
  event.preventDefault();
});
document.querySelectorAll("[data-verdict]").forEach((b) => b.addEventListener("click", () => ({ accept: KEYS.y, reject: KEYS.n, relabel }[b.dataset.verdict])()));

load();
