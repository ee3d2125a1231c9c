// Which of two pictures?

import { element, frame } from "./parts.js";

const KEYS = { 1: "a", ArrowLeft: "a", 2: "b", ArrowRight: "b", 0: "tie", t: "tie", ArrowDown: "tie", x: "both_bad" };
const LABELS = [["a", "A is better", "1"], ["tie", "About equal", "t"], ["b", "B is better", "2"], ["both_bad", "Both are bad", "x"]];

export const help = [["1 or ←", "A is better"], ["2 or →", "B is better"], ["t or ↓", "About equal"], ["x", "Both are bad"]];

export function open(root, task, tools) {
  const before = task.draft?.choice;
  const choose = (choice) => tools.submit({ choice });
  const frames = [0, 1].map((place) => {
    const made = frame(task, place, { class: before === "ab"[place] ? "chosen" : "" });
    made.addEventListener("click", () => choose("ab"[place]));
    return made;
  });
  const buttons = LABELS.map(([choice, label, key]) =>
    element("button", { type: "button", class: choice === before ? "was" : "", onclick: () => choose(choice) }, label, " ", element("kbd", {}, key)));
  root.replaceChildren(element("p", { class: "question" }, tools.words.question), element("p", { class: "prompt" }, task.prompt),
    element("div", { class: "pair" }, ...frames), element("div", { class: "choices" }, ...buttons));
  return { key: (event) => (event.key in KEYS ? (choose(KEYS[event.key]), true) : false) };
}
