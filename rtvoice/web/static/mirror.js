// The state of the conversation as the service has sent it: the whole, and then what has changed.

const MOST_EVENTS = 1000;

export class Mirror {
  constructor() {
    this.entries = []; // in the order of the talk
    this.events = [];
    this.sections = {};
  }

  /** Take a frame; return the ids of the entries that are new or different, and the gone ones. */
  apply(frame) {
    if (frame.whole) {
      this.entries = [];
      this.events = [];
    }
    const gone = frame.removed ?? [];
    if (gone.length) this.entries = this.entries.filter((entry) => !gone.includes(entry.id));
    for (const entry of frame.entries ?? []) this.put(entry);
    if (frame.events) this.events = [...this.events, ...frame.events].slice(-MOST_EVENTS);
    for (const [name, section] of Object.entries(frame)) {
      if (!NO_SECTIONS.includes(name)) this.sections[name] = section;
    }
    return { changed: (frame.entries ?? []).map((entry) => entry.id), gone };
  }

  put({ after, ...entry }) {
    const full = { text: "", heard: 0, state: "complete", at_s: 0, ...entry };
    this.entries = this.entries.filter((other) => other.id !== entry.id);
    const before = this.entries.findIndex((other) => other.id === after);
    if (before >= 0) this.entries.splice(before + 1, 0, full);
    else if (after === "") this.entries.unshift(full);
    else this.entries.push(full);
  }
}

const NO_SECTIONS = ["type", "whole", "entries", "removed", "events"];

/** Split a text after so many characters, which are not UTF-16 units. */
export function split(text, heard) {
  const characters = Array.from(text);
  return [characters.slice(0, heard).join(""), characters.slice(heard).join("")];
}
