// The panels beside the talk: processes, latency, cost, health, events.

import { part } from "./talk.js";

const MIB = 1024 * 1024;

/** The processes, each with a button that kills it. A death is shown for as long as one sees it. */
export class Processes {
  constructor(body, kill) {
    this.body = body;
    this.kill = kill;
    this.rows = new Map();
  }

  show(processes) {
    for (const about of processes) {
      const row = this.rows.get(about.name) ?? this.add(about);
      this.fill(row, { state: "starting", restarts: 0, mailbox: 0, ...about });
    }
  }

  add({ name, restarts = 0 }) {
    const line = document.createElement("tr");
    const head = part("th", "");
    head.scope = "row";
    const title = part("span", "name", name);
    const note = part("span", "note");
    head.append(title, note);
    const cells = ["memory", "cpu", "mail"].map((kind) => part("td", `number ${kind}`));
    const button = part("button", "kill", "Kill");
    button.setAttribute("aria-label", `Kill ${name}`);
    button.onclick = () => {
      this.mark(this.rows.get(name), "down", "killed …");
      this.kill(name);
    };
    const last = part("td", "");
    if (name !== "sandbox") last.append(button); // nobody would say that it is back
    line.append(head, ...cells, last);
    this.body.append(line);
    const row = { line, note, cells, restarts, timer: 0 };
    this.rows.set(name, row);
    return row;
  }

  fill(row, about) {
    const [memory, cpu, mail] = row.cells;
    memory.textContent = about.memory_bytes ? Math.round(about.memory_bytes / MIB) : "–";
    cpu.textContent = about.cpu === undefined || about.cpu === null ? "–" : `${Math.round(100 * about.cpu)} %`;
    mail.textContent = about.mailbox;
    if (about.restarts > row.restarts) {
      row.restarts = about.restarts;
      const back = about.back_ms === undefined ? "" : ` in ${Math.round(about.back_ms)} ms`;
      this.mark(row, "back", `back${back}`);
    } else if (about.state === "down" || about.state === "parked") {
      this.mark(row, "down", about.state === "parked" ? "crashes again and again" : "down");
    }
    row.line.title = about.cause ? `Restarted ${about.restarts} times; last: ${about.cause}` : "";
  }

  mark(row, state, text) {
    clearTimeout(row.timer);
    row.line.dataset.state = state;
    row.note.textContent = text;
    if (state === "back") row.timer = setTimeout(() => (row.line.dataset.state = "was"), 4000);
  }

  clear() {
    this.body.replaceChildren();
    this.rows.clear();
  }
}

const STEPS = [
  ["committed_ms", "Speech committed"],
  ["received_ms", "First sound received"],
  ["heard_ms", "First sound heard"],
];

/** Show the steps of the last answer as bars, one after the other. */
export function showLatency(place, { last, p50, p95, answers }) {
  if (!last) return;
  const whole = Math.max(1, last.heard_ms);
  const rows = part("dl", "waterfall");
  let from = 0;
  for (const [field, name] of STEPS) {
    const until = last[field];
    if (until === undefined || until === null) continue;
    const bar = part("i", "");
    bar.style.marginInlineStart = `${(100 * from) / whole}%`;
    bar.style.width = `${Math.max(1, (100 * (until - from)) / whole)}%`;
    const value = part("dd", "");
    value.append(part("span", "number", `${until} ms`), part("span", "track"));
    value.lastChild.append(bar);
    rows.append(part("dt", "", name), value);
    from = until;
  }
  const many = answers === 1 ? "1 answer" : `${answers} answers`;
  const small = part("p", "small", `After the end of your speech. Of ${many}: p50 ${p50} ms, p95 ${p95} ms.`);
  place.replaceChildren(rows, small);
}

const KINDS = {
  input_text: "Text in",
  input_audio: "Sound in",
  input_image: "Images in",
  input_cached: "Of these, cached",
  output_text: "Text out",
  output_audio: "Sound out",
};

export function showUsage(place, { tokens, dollars, budget_percent: budget }) {
  const used = Object.entries(tokens ?? {}).filter(([kind, count]) => kind in KINDS && count);
  const price = dollars === null ? "no price known" : `$${dollars.toFixed(4)}`;
  const lines = [["So far", price], ...used.map(([kind, count]) => [KINDS[kind], `${count}`])];
  if (budget) lines.push(["Budget", `${budget} % used`]);
  showList(place, lines);
}

export function showHealth(place, { counts, network }) {
  const trip = network?.round_trip_ms;
  const echo = network?.echo;
  showList(place, [
    ["Round trip", trip === null || trip === undefined ? "–" : `${trip.toFixed(1)} ms`],
    ...(echo ? [["Echo", echo.state === "cancelled" ? `${echo.erle_db} dB less` : echo.state]] : []),
    ["Restarts", counts.restarts],
    ["Reconnects", counts.reconnects],
    ["Interruptions", counts.interruptions],
    ["Underruns", counts.underruns],
    ["Lost", counts.lost_ms || counts.lost ? `${counts.lost_ms} ms, ${counts.lost} messages` : "nothing"],
  ]);
}

function showList(place, lines) {
  place.replaceChildren(
    ...lines.flatMap(([name, value]) => [part("dt", "", name), part("dd", "number", `${value}`)]),
  );
}

const MOST_SHOWN = 200;

/** Show the newest events that contain all words of a filter. */
export function showEvents(list, events, filter) {
  const words = filter.toLowerCase().split(/\s+/).filter(Boolean);
  const found = [];
  for (let at = events.length - 1; at >= 0 && found.length < MOST_SHOWN; at--) {
    const { t, event, fields } = events[at];
    const text = Object.entries(fields)
      .map(([name, value]) => `${name}=${typeof value === "string" ? value : JSON.stringify(value)}`)
      .join(" ");
    const whole = `${event} ${text}`.toLowerCase();
    if (!words.every((word) => whole.includes(word))) continue;
    const item = part("li", "");
    item.append(part("time", "", t.toFixed(2)), part("b", "", event), part("span", "", text.slice(0, 600)));
    found.push(item);
  }
  list.replaceChildren(...found);
}
