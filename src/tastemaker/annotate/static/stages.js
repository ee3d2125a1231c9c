// ImageReward's three steps: the text, each picture by itself, all pictures in order.

import { element, frame, letter } from "./parts.js";
import * as ranking from "./ranking.js";

export const help = [["letters, digits", "Choose what stands beside them"], ["1 … 7", "Mark on the highlighted scale"], ["↑ ↓", "Another scale"], ["Enter", "Go on"], ["Backspace", "Go back a step"], ...ranking.help];

const CATEGORY_KEYS = "qwertyiopadf", PROBLEM_KEYS = "qwertyi";

export function open(root, task, tools) {
  const draft = task.draft ?? {};
  const state = { prompt: draft.prompt ?? { category: null, problems: [], unclear: false }, ratings: task.pictures.map((_, k) => draft.ratings?.[k] ?? null) };
  let shown = null, place = state.ratings.findIndex((r) => !r), stage = !draft.prompt ? 0 : place >= 0 ? 1 : 2;
  if (place < 0) place = 0;

  function steps() {
    const names = ["The text", `Pictures${stage === 1 ? ` ${place + 1} of ${task.pictures.length}` : ""}`, "Order"];
    return element("ol", { class: "steps" }, ...names.map((name, k) => element("li", { "aria-current": k === stage ? "step" : null }, `${k + 1} ${name}`)));
  }

  function go() {
    const rest = element("div", { id: "stage", class: stage === 1 ? "rate" : "panel" });
    if (stage === 2) {
      const inner = element("div", { id: "stage" });
      inner.style.cssText = "flex:1;display:flex;flex-direction:column;gap:10px;min-height:0";
      root.replaceChildren(steps(), inner);
      const answer = (slots) => ({ prompt: state.prompt, ratings: state.ratings, ...slots });
      shown = ranking.open(inner, task, { ...tools, submit: (slots) => tools.submit(answer(slots)), refused: (slots) => tools.refused?.(answer(slots)) }, state.ratings);
      return;
    }
    root.replaceChildren(steps(), ...(stage === 0 ? [] : [element("p", { class: "prompt" }, task.prompt)]), rest);
    shown = stage === 0 ? aboutPrompt(rest, task, state.prompt, tools, forward) : aboutPicture(rest, task, place, state, tools, forward);
  }

  function forward() {
    if (stage === 0) { tools.part({ prompt: state.prompt }); stage = 1; place = Math.max(0, state.ratings.findIndex((r) => !r)); }
    else {
      tools.part({ picture: place, rating: state.ratings[place] });
      if (place + 1 < task.pictures.length) place += 1; else stage = 2;
    }
    go();
  }

  function back() {
    if (stage === 2) { stage = 1; place = task.pictures.length - 1; }
    else if (stage === 1 && place > 0) place -= 1;
    else if (stage === 1) stage = 0;
    else return;
    go();
  }

  go();
  return {
    key(event) {
      if (event.key === "Backspace") { back(); return true; }
      return shown.key(event);
    },
    current: () => (stage === 1 ? place : shown.current?.() ?? 0),
  };
}

function option(kind, group, name, label, key, checked, change) {
  const input = element("input", { type: kind, name: group, value: name, checked });
  input.addEventListener("change", () => change(input.checked));
  return { input, key, root: element("label", {}, input, label, element("kbd", {}, key)) };
}

function toggled(list, name, on) {
  const without = list.filter((n) => n !== name);
  return on ? [...without, name] : without;
}

function aboutPrompt(root, task, prompt, tools, forward) {
  const notice = element("p", { class: "alert notice", role: "alert", hidden: true });
  const categories = tools.words.categories.map(([name, label], k) => option("radio", "category", name, label, CATEGORY_KEYS[k], prompt.category === name, () => { prompt.category = name; notice.hidden = true; }));
  const problems = tools.words.prompt_problems.map(([name, label], k) => option("checkbox", "problems", name, label, String(k + 1), prompt.problems.includes(name), (on) => { prompt.problems = toggled(prompt.problems, name, on); }));
  const unclear = option("checkbox", "unclear", "unclear", "It is unclear what is wanted", "5", prompt.unclear, (on) => { prompt.unclear = on; });
  const next = () => { if (prompt.category) forward(); else { notice.textContent = "Please choose what the text is mainly about."; notice.hidden = false; } };
  root.replaceChildren(element("p", { class: "prompt" }, task.prompt), element("p", { class: "quiet" }),
    element("fieldset", { class: "options" }, element("legend", {}, "What is it mainly about?"), ...categories.map((o) => o.root)),
    element("fieldset", { class: "options" }, element("legend", {}, "What is wrong with the text? Leave empty if nothing is."), ...problems.map((o) => o.root), unclear.root),
    notice, element("div", { class: "choices" }, element("button", { type: "button", class: "primary", onclick: next }, "Go on ", element("kbd", {}, "Enter"))));
  return { key: (event) => pressed(event, [...categories, ...problems, unclear], next) };
}

function pressed(event, options, next) {
  if (event.key === "Enter") { next(); return true; }
  const found = options.find((o) => o.key === event.key.toLowerCase());
  if (found) found.input.click();
  return Boolean(found);
}

function aboutPicture(root, task, place, state, tools, forward) {
  const rating = { problems: [], ...(state.ratings[place] ?? {}) };
  const scales = tools.words.scales.map((scale, k) => scaleRow(scale, rating, () => { now = Math.min(k + 1, scales.length - 1); draw(); }));
  const problems = tools.words.picture_problems.map(([name, label], k) => option("checkbox", "problems", name, label, PROBLEM_KEYS[k], rating.problems.includes(name), (on) => { rating.problems = toggled(rating.problems, name, on); }));
  const notice = element("p", { class: "alert notice", role: "alert", hidden: true });
  let now = Math.max(0, scales.findIndex((s) => !rating[s.name]));
  function draw() { scales.forEach((s, k) => s.draw(k === now)); }
  function next() {
    const missing = scales.findIndex((s) => !rating[s.name]);
    if (missing >= 0) { now = missing; draw(); notice.textContent = "Please give all three marks."; notice.hidden = false; return; }
    state.ratings[place] = rating;
    forward();
  }
  root.replaceChildren(frame(task, place), element("div", {}, ...scales.map((s) => s.root),
    element("fieldset", { class: "options" }, element("legend", {}, "Problems"), ...problems.map((o) => o.root)), notice,
    element("div", { class: "choices" }, element("button", { type: "button", class: "primary", onclick: next }, "Go on ", element("kbd", {}, "Enter")))));
  draw();
  return {
    key(event) {
      if (/^[1-7]$/.test(event.key)) { scales[now].set(Number(event.key)); return true; }
      if (event.key === "ArrowUp" || event.key === "ArrowDown") { now = (now + (event.key === "ArrowUp" ? scales.length - 1 : 1)) % scales.length; draw(); return true; }
      return pressed(event, problems, next);
    },
  };
}

function scaleRow(scale, rating, done) {
  const set = (value) => { rating[scale.name] = value; done(); };
  const buttons = Array.from({ length: 7 }, (_, k) => element("button", { type: "button", role: "radio", "aria-label": `${scale.label}: ${k + 1}${scale.anchors[k + 1] ? `, ${scale.anchors[k + 1]}` : ""}`, onclick: () => set(k + 1) }, String(k + 1)));
  const anchors = Object.entries(scale.anchors).map(([value, text]) => element("span", {}, `${value}: ${text}`));
  const root = element("fieldset", { class: "scale" }, element("legend", {}, scale.label), element("div", { class: "marks", role: "radiogroup", "aria-label": scale.label }, ...buttons), element("div", { class: "anchors" }, ...anchors));
  const draw = (current) => { root.classList.toggle("now", current); buttons.forEach((b, k) => b.setAttribute("aria-checked", String(rating[scale.name] === k + 1))); };
  return { name: scale.name, root, set, draw };
}
