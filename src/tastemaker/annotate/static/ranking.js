// All pictures into slots, the best first: by dragging, by clicking a picture and then a slot, or by keys alone.

import { element, frame, letter } from "./parts.js";

export const help = [["← →", "Choose a picture"], ["1 … 5", "Put it into that slot"], ["0 or Delete", "Take it out again"], ["Enter", "Send, when every picture has a slot"]];

export function open(root, task, tools, ratings = null) {
  const { slots: count, per_slot: most, question } = tools.words;
  const slots = [...(task.draft?.slots ?? task.pictures.map(() => 0))];
  let selected = Math.max(0, slots.indexOf(0)), warned = false;
  const notice = element("p", { class: "alert notice", role: "alert", hidden: true });
  const tray = element("div", { class: "tray", "aria-label": "Pictures without a slot" });
  const columns = Array.from({ length: count }, (_, k) => column(k + 1));
  const board = element("div", { class: "slots" }, ...columns.map((c) => c.root));
  board.style.setProperty("--slots", count);
  const send = element("button", { type: "button", class: "primary", onclick: submit }, "Send ", element("kbd", {}, "Enter"));
  const pieces = task.pictures.map((_, place) => piece(place));
  root.replaceChildren(element("p", { class: "question" }, question), element("p", { class: "prompt" }, task.prompt), tray, notice, board, element("div", { class: "choices" }, send));

  function column(slot) {
    const label = slot === 1 ? "best" : slot === count ? "worst" : "";
    const head = element("button", { type: "button", onclick: () => put(selected, slot), "aria-label": `Put the chosen picture into slot ${slot}${label && `, ${label}`}` }, element("kbd", {}, String(slot)), element("span", { class: "quiet" }, label));
    const places = element("div", { class: "places" });
    const made = element("div", { class: "slot" }, head, places);
    accept(made, slot);
    return { root: made, places };
  }

  function accept(target, slot) {
    target.addEventListener("dragover", (event) => { event.preventDefault(); target.classList.add("over"); });
    target.addEventListener("dragleave", () => target.classList.remove("over"));
    target.addEventListener("drop", (event) => { event.preventDefault(); target.classList.remove("over"); put(Number(event.dataTransfer.getData("text/plain")), slot); });
  }

  function piece(place) {
    const made = frame(task, place, { tag: "button", type: "button", class: "piece", draggable: "true", zoom: false });
    made.addEventListener("click", () => { selected = place; draw(); });
    made.addEventListener("focus", () => { selected = place; mark(); });
    made.addEventListener("dragstart", (event) => event.dataTransfer.setData("text/plain", String(place)));
    return made;
  }

  function put(place, slot) {
    if (slot && slots[place] !== slot && slots.filter((s) => s === slot).length >= most) return say(`Slot ${slot} is full: at most ${most} pictures may share it.`);
    slots[place] = slot;
    warned = false;
    notice.hidden = true;
    const next = slots.findIndex((s, k) => s === 0 && k > place);
    if (slot) selected = next >= 0 ? next : slots.includes(0) ? slots.indexOf(0) : place;
    tools.part({ slots });
    draw();
  }

  function say(sentence) { notice.textContent = sentence; notice.hidden = false; }

  function mark() { pieces.forEach((p, k) => p.setAttribute("aria-pressed", String(k === selected))); }

  function draw() {
    const free = pieces.filter((_, k) => slots[k] === 0);
    tray.classList.toggle("empty", !free.length);
    tray.replaceChildren(...(free.length ? free : ["Every picture has its slot."]));
    columns.forEach((c, k) => c.places.replaceChildren(...pieces.filter((_, p) => slots[p] === k + 1)));
    pieces.forEach((p, k) => p.setAttribute("aria-label", `Picture ${letter(k)}, ${slots[k] ? `slot ${slots[k]}` : "no slot yet"}`));
    mark();
    send.disabled = slots.includes(0);
    pieces[selected].focus({ preventScroll: true });
  }

  function against() {
    if (!ratings || tools.words.consistency === "off") return [];
    const every = slots.map((_, k) => k);
    return every.flatMap((i) => every.filter((j) => ratings[i].overall > ratings[j].overall && slots[i] > slots[j]).map((j) => [i, j]));
  }

  function submit() {
    if (slots.includes(0)) return say("Some pictures have no slot yet.");
    const found = against();
    if (found.length && (!warned || tools.words.consistency === "block")) {
      const said = found.slice(0, 3).map(([i, j]) => `${letter(i)} has a better mark than ${letter(j)} but stands behind it`).join("; ");
      say(`${said}. ${tools.words.consistency === "block" ? "Please change the order or go back to the marks." : "Change it, or send it as it is with Enter."}`);
      warned = true;
      if (tools.words.consistency === "warn") return undefined;
      return tools.refused?.({ slots }); // the attempt is kept in the log
    }
    return tools.submit({ slots });
  }

  draw();
  return {
    key(event) {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (step) { selected = (selected + step + slots.length) % slots.length; draw(); }
      else if (/^[1-9]$/.test(event.key) && Number(event.key) <= count) put(selected, Number(event.key));
      else if (["0", "Delete"].includes(event.key)) put(selected, 0);
      else if (event.key === "Enter") submit();
      else return false;
      return true;
    },
    current: () => selected,
  };
}
