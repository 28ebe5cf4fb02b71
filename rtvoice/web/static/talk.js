// The talk: turns with what was heard of them, tool calls, notices.

import { split } from "./mirror.js";

const WHO = { user: "You", assistant: "Assistant" };

export class Talk {
  constructor(section, list, told) {
    this.section = section;
    this.list = list;
    this.told = told;
    this.items = new Map();
    this.announced = new Set();
  }

  /** Show the entries of a mirror. */
  show(mirror, { changed, gone }, isWhole) {
    const atEnd = this.isAtEnd();
    if (isWhole) {
      const there = new Set(mirror.entries.map((entry) => entry.id));
      for (const id of this.items.keys()) if (!there.has(id)) this.remove(id);
    }
    for (const id of gone) this.remove(id);
    const news = new Set(changed);
    let before = null;
    for (const entry of mirror.entries) {
      let item = this.items.get(entry.id);
      if (!item) this.items.set(entry.id, (item = document.createElement("li")));
      if (news.has(entry.id) || !item.firstChild) fill(item, entry);
      const wanted = before ? before.nextSibling : this.list.firstChild;
      if (item !== wanted) this.list.insertBefore(item, wanted);
      before = item;
      this.announce(entry, isWhole);
    }
    if (atEnd) this.section.scrollTop = this.section.scrollHeight;
  }

  /** Have a screen reader say each turn once, when it is complete. */
  announce(entry, isOld) {
    if (!(entry.kind in WHO) || entry.state === "partial" || !entry.text) return;
    if (this.announced.has(entry.id)) return;
    this.announced.add(entry.id);
    if (!isOld) this.told.textContent = `${WHO[entry.kind]}: ${entry.text}`;
  }

  isAtEnd() {
    const { scrollTop, scrollHeight, clientHeight } = this.section;
    return scrollHeight - scrollTop - clientHeight < 60;
  }

  remove(id) {
    this.items.get(id)?.remove();
    this.items.delete(id);
  }

  clear() {
    for (const id of [...this.items.keys()]) this.remove(id);
    this.announced.clear();
  }
}

function fill(item, entry) {
  item.className = `${entry.kind} ${entry.state.replace(" ", "-")}`;
  if (entry.kind === "tool") {
    fillTool(item, entry);
  } else if (entry.kind in WHO) {
    const who = part("span", "who", WHO[entry.kind]);
    const text = part("p", "text");
    if (entry.kind === "assistant") text.append(...spoken(entry));
    else text.append(...typed(entry));
    item.replaceChildren(who, text);
  } else {
    item.replaceChildren(part("p", "text", entry.text));
  }
}

function typed(entry) {
  const image = entry.image ? [part("span", "image", "image")] : [];
  if (entry.state === "failed") return [...image, part("span", "unknown", "(no transcript)")];
  if (!entry.text && entry.state === "partial") return [part("span", "unknown", "…")];
  return [...image, entry.text];
}

function spoken(entry) {
  if (!entry.text) return [part("span", "unknown", entry.state === "partial" ? "…" : "(nothing)")];
  const [heard, unheard] = split(entry.text, entry.heard);
  const parts = [part("span", "heard", heard)];
  if (unheard && entry.state === "interrupted") {
    parts.push(part("span", "unseen", " (interrupted; not heard: "), part("s", "unheard", unheard));
    parts.push(part("span", "unseen", ")"));
  } else if (unheard) {
    parts.push(part("span", "unheard", unheard));
  }
  if (entry.state === "cut off") parts.push(part("span", "unknown", " (cut off)"));
  return parts;
}

function fillTool(item, entry) {
  const isOpen = item.querySelector("details")?.open ?? false;
  const details = document.createElement("details");
  details.open = isOpen;
  const runs = entry.seconds === undefined || entry.seconds === null;
  const took = runs ? "runs …" : `${entry.seconds.toFixed(2)} s`;
  const summary = part("summary", "");
  const failed = entry.state === "failed" ? " failed" : "";
  summary.append(part("code", "", entry.text), part("span", "small", `${failed} ${took}`));
  const about = part("dl", "");
  about.append(part("dt", "", "Arguments"), part("dd", "", entry.arguments || "none"));
  if (entry.output) about.append(part("dt", "", "Answer"), part("dd", "", entry.output));
  details.append(summary, about);
  item.replaceChildren(details);
}

export function part(name, className, text = "") {
  const element = document.createElement(name);
  if (className) element.className = className;
  element.textContent = text;
  return element;
}
