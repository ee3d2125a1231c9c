// Small pieces that every page of work shares. No library, no request to anywhere else.

import { element } from "/pages/element.js";
export { element };

export const letter = (place) => String.fromCharCode(65 + place);
export const words = JSON.parse(document.getElementById("words").textContent);

// One picture: its letter, a button for full size, and a veil if it may disturb.
export function frame(task, place, { tag = "figure", zoom = true, ...attributes } = {}) {
  const image = element("img", { src: task.pictures[place].url, alt: `Picture ${letter(place)}`, draggable: "false" });
  image.addEventListener("load", () => image.classList.toggle("small", image.naturalWidth < 200));
  const made = element(tag, { ...attributes, class: `frame ${attributes.class ?? ""}` }, image, element("span", { class: "letter", "aria-hidden": "true" }, letter(place)));
  if (zoom) {
    const look = element("button", { type: "button", class: "look", "aria-label": `Picture ${letter(place)} in full size`, title: "Full size (z)" }, "⤢");
    look.addEventListener("click", (event) => { event.stopPropagation(); openZoom(task, place); });
    made.append(look);
  }
  if (task.sensitive && !task.unveiled) veil(made, task);
  return made;
}

function veil(made, task) {
  made.classList.add("veiled");
  if (made.tagName === "BUTTON") return; // a button cannot hold another; the key v and the others unveil it
  const ask = element("button", { type: "button", class: "unveil" }, "May be disturbing. Show ", element("kbd", {}, "v"));
  ask.addEventListener("click", (event) => { event.stopPropagation(); unveil(task); });
  made.append(ask);
}

export function unveil(task) {
  task.unveiled = true;
  document.querySelectorAll(".frame.veiled").forEach((f) => { f.classList.remove("veiled"); f.querySelector(".unveil")?.remove(); });
}

export function preload(task) {
  for (const picture of task.pictures) new Image().src = picture.url;
}

// All pictures side by side, zoomed and moved together.
let view = { scale: 1, x: 0, y: 0 };

export function openZoom(task, first = 0) {
  if (task.sensitive && !task.unveiled) unveil(task);
  const dialog = document.getElementById("zoom");
  const several = task.pictures.length <= 4;
  const shown = several ? task.pictures.map((_, k) => k) : [first];
  const panes = element("div", { class: "panes" }, ...shown.map((k) => pane(task, k)));
  const turn = (step) => { dialog.close(); openZoom(task, (first + step + task.pictures.length) % task.pictures.length); };
  const button = (label, name, act) => element("button", { type: "button", "aria-label": name, title: name, onclick: act }, label);
  const bar = element("div", { class: "bar" }, element("span", {}, task.prompt),
    several ? null : button("‹", "Previous picture", () => turn(-1)), several ? null : button("›", "Next picture", () => turn(1)),
    button("−", "Smaller", () => scale(1 / 1.4)), button("+", "Larger", () => scale(1.4)), button("Fit", "Whole picture (0)", reset),
    button("Close", "Close", () => dialog.close()));
  dialog.replaceChildren(bar, panes);
  dialog.onkeydown = (event) => zoomKey(event, dialog, several ? null : turn);
  reset();
  if (!dialog.open) dialog.showModal();
  bar.lastElementChild.focus();
}

function pane(task, place) {
  const image = element("img", { src: task.pictures[place].url, alt: `Picture ${letter(place)}`, draggable: "false" });
  image.addEventListener("load", () => image.classList.toggle("small", image.naturalWidth < 200));
  const made = element("div", { class: "pane" }, image, element("span", { class: "letter" }, letter(place)));
  const held = new Map();
  made.addEventListener("wheel", (event) => { event.preventDefault(); scale(event.deltaY < 0 ? 1.15 : 1 / 1.15); }, { passive: false });
  made.addEventListener("pointerdown", (event) => { made.setPointerCapture(event.pointerId); held.set(event.pointerId, event); });
  made.addEventListener("pointermove", (event) => drag(held, event));
  for (const end of ["pointerup", "pointercancel"]) made.addEventListener(end, (event) => held.delete(event.pointerId));
  return made;
}

function drag(held, event) {
  const before = held.get(event.pointerId);
  if (!before) return;
  const other = [...held.values()].find((p) => p.pointerId !== event.pointerId);
  if (other) scale(distance(event, other) / Math.max(1, distance(before, other)));
  else { view.x += event.clientX - before.clientX; view.y += event.clientY - before.clientY; apply(); }
  held.set(event.pointerId, event);
}

const distance = (a, b) => Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY);

function scale(by) {
  const next = Math.min(16, Math.max(1, view.scale * by));
  view = { scale: next, x: view.x * next / view.scale, y: view.y * next / view.scale };
  apply();
}

function reset() { view = { scale: 1, x: 0, y: 0 }; apply(); }

function apply() {
  for (const image of document.querySelectorAll(".zoom .pane img")) image.style.transform = `translate(${view.x}px, ${view.y}px) scale(${view.scale})`;
}

function zoomKey(event, dialog, turn) {
  const step = 60;
  const moves = { ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
  if (event.key === "z") dialog.close();
  else if (event.key === "+" || event.key === "=") scale(1.4);
  else if (event.key === "-") scale(1 / 1.4);
  else if (event.key === "0") reset();
  else if (turn && view.scale === 1 && event.key in { ArrowLeft: 1, ArrowRight: 1 }) turn(event.key === "ArrowLeft" ? -1 : 1);
  else if (event.key in moves) { view.x += moves[event.key][0]; view.y += moves[event.key][1]; apply(); }
  else return;
  event.preventDefault();
  event.stopPropagation();
}
