// The studio's page: what is asked goes to the server as it changes; a newer request ends the older one.

import { element } from "/pages/element.js";

const WAIT = 120; // milliseconds of rest before pictures are asked for
const byId = (name) => document.getElementById(name);
const page = Array.from(crypto.getRandomValues(new Uint8Array(12)), (b) => b.toString(16).padStart(2, "0")).join("");
const [form, trouble, state] = ["asking", "trouble", "state"].map(byId);
let model = null, dials = [], running = null, timer = null;

const SILENT = "The server does not answer; is tastemaker studio still running?";

async function ask(path, body, signal) {
  const reply = await fetch(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ page, ...body }), signal })
    .catch(() => { throw new Error(SILENT); });
  const said = await reply.json().catch(() => ({ error: "The server failed; the window where it runs says why." }));
  if (!reply.ok) throw Object.assign(new Error(said.error), { status: reply.status });
  return said;
}

function say(sentence) { trouble.textContent = sentence; trouble.hidden = !sentence; }

// one slider for each reward

function dial(name, place) {
  const range = element("input", { type: "range", id: `level-${place}`, min: 0, max: model.bins - 1, step: 1 });
  const off = element("input", { type: "checkbox", "aria-label": `${name} is not asked` });
  const output = element("output", { for: range.id });
  const root = element("div", { class: "dial" },
    element("div", { class: "head" }, element("label", { for: range.id }, element("kbd", {}, String(place + 1)), " ", name),
      element("label", { class: "off" }, off, "not asked"), output), range);
  const made = { name, root, range, off, level: () => Math.round(1e4 * range.value / (model.bins - 1)) / 1e4, show };
  function show() {
    root.classList.toggle("unasked", off.checked);
    output.textContent = off.checked ? "–" : made.level().toFixed(2);
    range.setAttribute("aria-valuetext", off.checked ? "not asked" : made.level().toFixed(2));
  }
  range.addEventListener("input", () => { off.checked = false; });
  range.addEventListener("keydown", (event) => {
    if (event.key !== "x") return;
    off.checked = !off.checked;
    event.stopPropagation();
    changed();
  });
  return made;
}

function put(setting) {
  byId("prompt").value = setting.prompt;
  byId("seed").value = setting.seed;
  byId("count").value = setting.pictures;
  byId("w").value = setting.w;
  form.elements.caption.value = setting.caption;
  for (const d of dials) {
    const level = setting.levels[d.name];
    d.off.checked = level === undefined;
    d.range.value = Math.round((level ?? 0.5) * (model.bins - 1));
  }
}

function setting() {
  const levels = Object.fromEntries(dials.filter((d) => !d.off.checked).map((d) => [d.name, d.level()]));
  return { prompt: byId("prompt").value, seed: byId("seed").valueAsNumber, pictures: byId("count").valueAsNumber,
    levels, w: byId("w").valueAsNumber, caption: form.elements.caption.value };
}

function show() {
  dials.forEach((d) => d.show());
  const nothing = dials.every((d) => d.off.checked);
  byId("nothing").hidden = !nothing;
  for (const choice of form.elements.caption) choice.disabled = nothing;
  byId("w-said").textContent = `${byId("w").value} (g = ${Number(byId("w").value) + 1})`;
}

// the pictures

function changed() {
  show();
  const now = setting();
  history.replaceState(null, "", `#${encodeURIComponent(JSON.stringify(now))}`);
  byId("strip").classList.add("stale");
  clearTimeout(timer);
  timer = setTimeout(() => request("/api/draw", { setting: now }, showPictures), WAIT);
}

async function request(path, body, done) {
  running?.abort();
  const mine = running = new AbortController();
  state.textContent = "Drawing";
  byId("pictures").classList.toggle("waiting", path === "/api/draw");
  try {
    const said = await ask(path, body, mine.signal);
    say("");
    state.textContent = `${said.seconds.toFixed(1)} s`;
    done(said);
  } catch (error) {
    if (mine.signal.aborted) return;
    if (error.status === 409) { changed(); return; } // overtaken by an older request of this page that came late
    state.textContent = "";
    say(error.message);
  }
  if (running === mine) byId("pictures").classList.remove("waiting");
}

const number = (value) => (value === null ? "–" : Math.abs(value) < 100 ? value.toFixed(2) : value.toFixed(0));

function shot(picture, names, title, wrap = (image) => image) {
  const image = element("img", { src: picture.url, alt: `Seed ${picture.seed}: ${byId("prompt").value}`, draggable: "false" });
  image.addEventListener("load", () => image.classList.toggle("small", image.naturalWidth < 200));
  const rows = names.filter((n) => n in picture.scores).flatMap((n) => {
    const level = picture.reached[n];
    const bar = level === undefined || level === null ? element("span") : element("meter", { min: 0, max: 1, value: level, title: `level ${level.toFixed(2)}`, "aria-label": `level of ${n}` });
    return [element("dt", { title: n }, n), element("dd", {}, number(picture.scores[n])), bar];
  });
  return element("figure", { class: "shot" }, wrap(image), element("figcaption", {}, element("p", { class: "seed" }, title), element("dl", { class: "scores" }, ...rows)));
}

function showPictures(said) {
  byId("pictures").replaceChildren(...said.pictures.map((p) => shot(p, Object.keys(p.scores), `seed ${p.seed}`)));
  byId("notes").replaceChildren(...said.notes.map((n) => element("p", {}, n)));
  byId("command").textContent = said.command;
}

// the strip

function drawStrip() {
  const names = [byId("first").value, byId("second").value];
  clearTimeout(timer);
  request("/api/sweep", { setting: setting(), sweep: { first: names[0], second: names[1] } }, (said) => {
    byId("strip").classList.remove("stale");
    byId("strip").replaceChildren(...said.pictures.map((p) => shot(p, names, names.map((n) => p.levels[n].toFixed(2)).join(" / "), (image) =>
      element("button", { type: "button", "aria-label": `Take these levels: ${names.map((n) => `${n} ${p.levels[n].toFixed(2)}`).join(", ")}`, onclick: () => take(p) }, image))));
  });
}

function take(picture) {
  put({ ...setting(), levels: picture.levels });
  changed();
  byId("strip").classList.remove("stale");
}

// keys

async function copy() {
  const line = byId("command");
  try { await navigator.clipboard.writeText(line.textContent); state.textContent = "Copied"; } catch {
    getSelection().selectAllChildren(line);
    state.textContent = "Selected; copy it with Ctrl+C";
  }
}

function reseed() {
  byId("seed").value = Math.floor(Math.random() * 1e6);
  changed();
}

const KEYS = { n: reseed, t: drawStrip, c: copy, p: () => byId("prompt").select(), "?": () => byId("keys").showModal() };

document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input:not([type=range], [type=checkbox], [type=radio]), select");
  if (event.key === "Escape" && typing) event.target.blur();
  if (typing || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const place = Number(event.key) - 1;
  if (dials[place]) dials[place].range.focus();
  else if (event.key in KEYS) KEYS[event.key]();
  else return;
  event.preventDefault();
});

function remembered() {
  try {
    const said = JSON.parse(decodeURIComponent(location.hash.slice(1)));
    return { ...model.first, ...said, levels: said.levels ?? model.first.levels };
  } catch { return model.first; }
}

async function begin() {
  try { model = await (await fetch("/api/model")).json(); } catch { say(SILENT); return; }
  byId("model").textContent = model.model;
  dials = model.rewards.map(dial);
  byId("sliders").replaceChildren(...dials.map((d) => d.root));
  for (const [k, name] of ["first", "second"].entries()) {
    byId(name).replaceChildren(...model.rewards.map((r) => element("option", {}, r)));
    byId(name).selectedIndex = Math.min(k, model.rewards.length - 1);
  }
  byId("strip-button").disabled = model.rewards.length < 2;
  put(remembered());
  form.addEventListener("input", changed);
  form.addEventListener("submit", (event) => event.preventDefault());
  byId("sweep").addEventListener("submit", (event) => { event.preventDefault(); drawStrip(); });
  byId("reseed").addEventListener("click", reseed);
  byId("copy").addEventListener("click", copy);
  byId("help").addEventListener("click", KEYS["?"]);
  changed();
}

begin();
