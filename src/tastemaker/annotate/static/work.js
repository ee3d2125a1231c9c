// The annotator's page: takes tasks from the server, shows one, keeps the next ready, and sends what was answered.

import { element, openZoom, preload, unveil, words } from "./parts.js";
import { Outbox, Refused, freshToken, post } from "./send.js";
import * as pairs from "./pairs.js";
import * as ranking from "./ranking.js";
import * as stages from "./stages.js";

const PRESETS = { pairs, ranking, imagereward: stages };
const preset = PRESETS[words.preset];
const byId = (name) => document.getElementById(name);
const root = byId("task"), trouble = byId("trouble"), saved = byId("saved");
const outbox = new Outbox(root.dataset.person, showSaving);

let tasks = [], shown = null, since = 0, input = "pointer", partTimer = null, busy = false;

function showSaving(waiting, failing) {
  saved.classList.toggle("waiting", waiting > 0);
  saved.textContent = failing ? "Not saved yet; trying again" : waiting ? "Saving" : "Saved";
}

function say(sentence) { trouble.textContent = sentence; trouble.hidden = !sentence; }

function showProgress({ done, quota, skips_left: skips, status }, left) {
  byId("progress").textContent = status === "testing" ? "Test before the work" : `${done}${quota ? ` of ${quota}` : ""} answered`;
  byId("skip").disabled = skips === 0 || status === "testing";
  byId("skip").title = `Skip this one (s); ${skips} left`;
  if (left !== undefined) byId("progress").title = `${left} items are open`;
}

async function hold() {
  const said = await withPatience(() => post(`/api/projects/${words.project}/hold`));
  const known = new Set(tasks.map((t) => t.token));
  tasks.push(...said.tasks.filter((t) => !known.has(t.token)));
  showProgress(said.progress, said.left);
  return said.progress;
}

async function withPatience(ask) {
  for (let delay = 300; ; delay = Math.min(delay * 1.7, 5000)) {
    try { const said = await ask(); if (saved.textContent.startsWith("Not")) saved.textContent = ""; return said; } catch (error) {
      if (error instanceof Refused && error.status < 500) throw error;
      saved.textContent = "The server does not answer; trying again";
      await new Promise((resolve) => setTimeout(resolve, delay));
    }
  }
}

async function next() {
  let progress = null;
  if (!tasks.length) {
    await outbox.flush();
    try { progress = await hold(); } catch (error) { say(error.message); return; }
  }
  if (!tasks.length) { showEnd(progress); return; }
  show(tasks[0]);
  tasks.slice(1).forEach(preload);
}

function show(task) {
  say("");
  since = performance.now();
  const tools = { words, submit: (answer) => submit(task, answer), part: (part) => keep(task, part), refused: (answer) => attempt(task, answer) };
  shown = preset.open(root, task, tools);
  window.scrollTo(0, 0);
  document.body.dataset.task = task.token;
}

function showEnd({ status, quota, done }) {
  shown = null;
  delete document.body.dataset.task;
  const sentence = status === "failed" ? "Thank you. The test was not passed, so there is no work here for you now." : quota && done >= quota ? "Thank you! That was all of your share." : "Thank you! There is nothing to do at the moment.";
  const again = element("button", { type: "button", class: "primary", onclick: next }, "Look again");
  root.replaceChildren(element("div", { class: "done card" }, element("h2", {}, sentence), element("p", { class: "quiet" }, `${done} answered.`), status === "failed" ? null : again));
}

const client = () => `${input} ${innerWidth}x${innerHeight}`;
const facts = () => ({ ms: Math.round(performance.now() - since), client: client(), guideline: words.guideline });

function submit(task, answer, certain = false) {
  if (tasks[0] !== task || (busy && !certain)) return;
  clearTimeout(partTimer);
  busy = true; // a second click or key just after must not answer the next task too
  setTimeout(() => { busy = false; }, 150);
  tasks.shift();
  outbox.send(`/api/tasks/${task.token}/answer`, { answer, ...facts() }).then(
    (said) => { if (said.next) { tasks.push(said.next); preload(said.next); } if (said.progress) showProgress(said.progress); },
    (error) => { if (error.said?.blocked) tasks.unshift({ ...task, draft: answer }); next().then(() => say(error.message)); },
  );
  next();
}

function attempt(task, answer) { // refused by the rule here; the server keeps the attempt in its log
  outbox.send(`/api/tasks/${task.token}/answer`, { answer, ...facts() }).catch(() => {});
}

function keep(task, part) {
  clearTimeout(partTimer);
  const copy = JSON.parse(JSON.stringify(part));
  task.draft = "slots" in copy ? { ...task.draft, ...copy } : task.draft;
  const send = () => outbox.send(`/api/tasks/${task.token}/part`, { part: copy, ...facts() }).catch((error) => say(error.message));
  if ("slots" in copy) partTimer = setTimeout(send, 250); else send();
}

async function undo() {
  await outbox.flush();
  try {
    const body = { client_token: freshToken(), ...facts() }; // the same for every try
    const said = await withPatience(() => post(`/api/projects/${words.project}/undo`, body));
    if (!said.task) { say("There is nothing to take back."); return; }
    tasks = [said.task, ...tasks.filter((t) => t.token !== said.task.token)];
    showProgress(said.progress);
    show(tasks[0]);
  } catch (error) { say(error.message); }
}

function skip() {
  if (!tasks.length || byId("skip").disabled) return;
  const dialog = byId("skipping");
  const task = tasks[0];
  const choose = (reason) => { dialog.close(); submit(task, { choice: "skip", reason }, true); };
  byId("reasons").replaceChildren(...words.skip_reasons.map(([name, label], k) => element("button", { type: "button", onclick: () => choose(name) }, element("kbd", {}, String(k + 1)), label)));
  dialog.onkeydown = (event) => { const found = words.skip_reasons[Number(event.key) - 1]; if (found) { event.preventDefault(); choose(found[0]); } };
  dialog.showModal();
}

function showKeys() {
  const every = [...preset.help, ["z", "Full size; + − and arrows there"], ["v", "Show a blurred picture"], ["u", "Take back the last answer"], ["s", "Skip"], ["g", "Guideline"], ["?", "This list"]];
  byId("key-list").replaceChildren(...every.flatMap(([key, what]) => [element("dt", {}, element("kbd", {}, key)), element("dd", {}, what)]));
  byId("keys").showModal();
}

const COMMON = { u: undo, s: skip, g: () => { location.href = `/guideline/${words.project}`; }, "?": showKeys, v: () => tasks.length && unveil(tasks[0]), z: () => tasks.length && openZoom(tasks[0], shown?.current?.() ?? 0) };

document.addEventListener("keydown", (event) => {
  input = "keyboard";
  const typing = event.target.matches("input:not([type=checkbox], [type=radio]), textarea, select");
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || typing || document.querySelector("dialog[open]")) return;
  const onButton = event.target.matches("button, a") && !event.target.closest("#task");
  if ((event.key === "Enter" || event.key === " ") && onButton) return; // the focused button itself
  const act = COMMON[event.key];
  if (act) act(); else if (!shown?.key(event)) return;
  event.preventDefault();
});
document.addEventListener("pointerdown", () => { input = "pointer"; });
byId("undo").addEventListener("click", undo);
byId("skip").addEventListener("click", skip);
byId("help").addEventListener("click", showKeys);

outbox.flush().then(next);
