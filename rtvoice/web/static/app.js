// The page: what is pressed, typed and dropped, and what is shown.

import { Call, problemAt } from "./call.js";
import { Line, SoundError, canChooseLoudspeaker, devices } from "./line.js";
import { Mirror } from "./mirror.js";
import { Processes, showEvents, showHealth, showLatency, showUsage } from "./panels.js";
import { Talk, part } from "./talk.js";

const $ = (id) => document.getElementById(id);
const key = new URLSearchParams(location.search).get("key") ?? "";
const PHASES = {
  starting: ["Starting", "One moment …"],
  listening: ["Listening", "Speak."],
  "hearing you": ["Hearing you", ""],
  thinking: ["Thinking", ""],
  speaking: ["Speaking", "You can interrupt."],
  paused: ["Paused", ""],
  muted: ["Muted", "The assistant does not hear you."],
  reconnecting: ["Reconnecting", "The server was lost; your conversation goes on."],
  ending: ["Ending", ""],
  ended: ["Ended", ""],
  failed: ["Failed", ""],
};
const MOST_IMAGE = 4 * 1024 * 1024;
const LARGEST_SIDE = 2048;

let line = null;
let call = null;
let mirror = new Mirror();
const talk = new Talk($("talk"), $("entries"), $("told"));
const processes = new Processes($("processes").tBodies[0], (component) => call?.send("kill", { component }));

// -- start and end ------------------------------------------------------------------------------

async function start() {
  $("start").disabled = true;
  show("starting", "Starting", "One moment …");
  problem("");
  line = new Line({
    sound: (pcm) => call?.speak(pcm),
    played: (ms, clears) => call?.send("played", { ms, clears }),
    levels: (input) => level("meter-microphone", decibels(input)),
    lost: microphoneLost,
  });
  try {
    await line.open($("microphone").value, $("loudspeaker").value);
  } catch (error) {
    await line.close();
    if (error instanceof SoundError) over(error.message, true);
    else over((await problemAt(key)) || `There is no sound: ${error.message}.`, true);
    return;
  }
  listDevices();
  if (line.isHeldBack) {
    show("held", "Held back", "The browser plays nothing before something is pressed: press any key or button.");
    await untilPressed();
    await line.resume();
  }
  mirror = new Mirror();
  talk.clear();
  processes.clear();
  call = new Call(
    {
      sound: (pcm) => line.play(pcm),
      clear: (clears) => line.clear(clears),
      view: take,
      refused: toast,
      state: changed,
      over,
    },
    key,
  );
  call.start(line.rate);
}

function untilPressed() {
  return new Promise((done) => {
    for (const kind of ["pointerdown", "keydown"]) addEventListener(kind, done, { once: true });
  });
}

function changed(state, about) {
  if (state === "lost") {
    line?.clear(line.clears); // what is still to come will be said anew
    show("reconnecting", "Reconnecting", about || "The connection was lost: you are not heard. The conversation will go on.");
    return;
  }
  line.clear(0); // a new socket counts anew
  converses(true);
}

function over(reason, isTrouble) {
  call = null;
  line?.close();
  line = null;
  converses(false);
  $("start").disabled = false;
  $("start").textContent = "Start";
  if (isTrouble) {
    show("failed", "Not started", "");
    if (mirror.entries.length) show("failed", "Ended", "");
    problem(sentence(reason));
  } else {
    show("ended", "Ended", sentence(REASONS[reason] ?? reason));
  }
}

const REASONS = {
  "the program asked": "You have left.",
  "inactivity timeout": "Nobody has spoken for a while.",
  "stop tool": "The assistant has said goodbye.",
  budget: "The budget is used up.",
  "the conversation goes on at another socket": "The conversation goes on in another tab.",
};

function sentence(text) {
  const first = text.charAt(0).toUpperCase() + text.slice(1);
  return !first || /[.!?…)]$/.test(first) ? first : `${first}.`;
}

function converses(does) {
  $("welcome").hidden = does;
  $("talk").hidden = !does && mirror.entries.length === 0;
  for (const id of ["controls", "meters"]) $(id).hidden = !does;
  for (const button of document.querySelectorAll(".kill")) button.hidden = !does;
  for (const id of ["volume", "speed"]) $(id).disabled = !does;
  if (does) problem("");
  else $("phrases").hidden = true;
}

// -- what is shown ------------------------------------------------------------------------------

function show(phase, word, hint) {
  document.body.dataset.phase = phase.replaceAll(" ", "-");
  if ($("phase").textContent !== word) $("phase").textContent = word;
  if ($("hint").textContent !== hint) $("hint").textContent = hint;
}

function problem(text) {
  $("problem").hidden = !text;
  $("problem").textContent = text;
}

let toastTimer = 0;
function toast(text) {
  clearTimeout(toastTimer);
  $("toast").hidden = false;
  $("toast").textContent = sentence(text);
  toastTimer = setTimeout(() => ($("toast").hidden = true), 6000);
}

function take(frame) {
  const news = mirror.apply(frame);
  if (frame.whole) $("inside").hidden = !("processes" in frame);
  talk.show(mirror, news, frame.whole === true);
  if (frame.state) showState(frame.state);
  if (frame.levels) {
    level("meter-input", frame.levels.input);
    level("meter-output", frame.levels.output);
  }
  if (frame.session) showSession(frame.session);
  if (frame.processes) processes.show(frame.processes);
  if (frame.latency) showLatency($("latency"), frame.latency);
  if (frame.usage) showUsage($("usage"), frame.usage);
  if ((frame.counts || frame.network) && mirror.sections.counts) showHealth($("counts"), mirror.sections);
  if (frame.events && $("events-panel").open) showEvents($("events"), mirror.events, $("filter").value);
}

function showState(state) {
  const [word, hint] = PHASES[state.phase] ?? [state.phase, ""];
  const { push_to_talk: byHand } = mirror.sections.session ?? {};
  show(state.phase, word, state.phase === "listening" && byHand ? "Hold space, or the button, and speak." : hint);
  $("mute").setAttribute("aria-pressed", String(state.muted));
  $("mute").textContent = state.muted ? "Unmute" : "Mute";
  line?.mute(state.muted);
  $("interrupt").disabled = !["speaking", "thinking", "paused"].includes(state.phase);
  slider("volume", Math.round(100 * state.volume), (value) => `${value} %`);
  slider("speed", state.speed, (value) => Number(value).toFixed(2));
}

function slider(id, value, shown) {
  if (document.activeElement !== $(id)) $(id).value = value;
  $(`${id}-value`).textContent = shown($(id).value);
}

function showSession({ push_to_talk: byHand, sandbox, phrases }) {
  $("hold").hidden = !byHand;
  $("phrases").hidden = !sandbox;
  $("phrase-list").replaceChildren(
    ...(phrases ?? []).map((text) => {
      const item = part("li", "");
      const button = part("button", "phrase", text.replace(/\s*\(.*/, ""));
      button.onclick = () => call?.send("say", { text: button.textContent });
      item.append(button);
      return item;
    }),
  );
}

const decibels = (peak) => (peak > 0 ? 20 * Math.log10(peak) : -100);

/** Show a level: from -60 dB to 0. */
function level(id, dbfs) {
  const percent = Math.round(Math.max(0, Math.min(100, ((dbfs + 60) / 60) * 100)));
  $(id).setAttribute("aria-valuenow", percent);
  $(id).firstElementChild.style.width = `${percent}%`;
}

// -- devices ------------------------------------------------------------------------------------

async function listDevices() {
  fillSelect($("microphone"), await devices("audioinput"));
  if (canChooseLoudspeaker()) fillSelect($("loudspeaker"), await devices("audiooutput"));
  else $("loudspeaker").disabled = true;
}

function fillSelect(select, found) {
  const chosen = select.value;
  select.replaceChildren(new Option("Default", ""), ...found.map(([id, name]) => new Option(name, id)));
  select.value = found.some(([id]) => id === chosen) ? chosen : "";
}

function microphoneLost() {
  toast("The microphone is gone; using the default one");
  $("microphone").value = "";
  line?.useMicrophone("").catch((error) => toast(error.message));
}

$("microphone").onchange = () =>
  line?.useMicrophone($("microphone").value).catch((error) => toast(error.message));
$("loudspeaker").onchange = () =>
  line?.useLoudspeaker($("loudspeaker").value).catch((error) => toast(error.message));
navigator.mediaDevices?.addEventListener?.("devicechange", listDevices);

// -- what is pressed, typed and dropped -----------------------------------------------------------

$("start").onclick = start;
$("leave").onclick = () => {
  show("ending", "Ending", "");
  call?.leave();
};
$("interrupt").onclick = () => call?.send("interrupt");
$("mute").onclick = () => {
  const muted = $("mute").getAttribute("aria-pressed") !== "true";
  line?.mute(muted);
  call?.send("mute", { muted });
};
$("volume").oninput = () => {
  call?.send("volume", { volume: Number($("volume").value) / 100 });
  $("volume-value").textContent = `${$("volume").value} %`;
};
$("speed").onchange = () => call?.send("speed", { speed: Number($("speed").value) });
$("say").onsubmit = (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  if (!text) return;
  if (call?.send("say", { text })) $("text").value = "";
  else toast("There is no connection; the text was not sent");
};
$("filter").oninput = () => showEvents($("events"), mirror.events, $("filter").value);
$("events-panel").ontoggle = () => showEvents($("events"), mirror.events, $("filter").value);

let isHeld = false;
function hold(does) {
  if (does === isHeld || $("hold").hidden || !call) return;
  isHeld = does;
  $("hold").dataset.held = does;
  call.send(does ? "start_talking" : "stop_talking");
}
$("hold").onpointerdown = () => hold(true);
for (const kind of ["pointerup", "pointercancel", "blur"]) addEventListener(kind, () => hold(false));
const isField = (element) => /^(INPUT|SELECT|TEXTAREA|BUTTON|SUMMARY)$/.test(element.tagName);
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && call) call.send("interrupt");
  if (event.key !== " " || (isField(event.target) && event.target !== $("hold"))) return;
  if ($("hold").hidden || !call) return;
  event.preventDefault();
  hold(true);
});
addEventListener("keyup", (event) => event.key === " " && hold(false));

$("image").onclick = () => $("file").click();
$("file").onchange = () => {
  if ($("file").files.length) showImage($("file").files[0]);
  $("file").value = "";
};
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  const [file] = event.dataTransfer.files;
  if (file && call) showImage(file);
});

async function showImage(file) {
  try {
    const image = await fitting(file);
    const text = $("text").value.trim();
    if (call?.image(await image.arrayBuffer(), { text })) $("text").value = "";
    else toast("There is no connection; the image was not sent");
  } catch {
    toast(`${file.name} is no image that this browser can read`);
  }
}

/** Return a PNG or JPEG that is not too large. */
async function fitting(file) {
  const isFine = ["image/png", "image/jpeg"].includes(file.type) && file.size <= MOST_IMAGE / 4;
  if (isFine) return file;
  const picture = await createImageBitmap(file);
  const scale = Math.min(1, LARGEST_SIDE / Math.max(picture.width, picture.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(picture.width * scale));
  canvas.height = Math.max(1, Math.round(picture.height * scale));
  canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
  return new Promise((done, fail) =>
    canvas.toBlob((blob) => (blob ? done(blob) : fail(new Error())), "image/jpeg", 0.85),
  );
}

// -- the first moment -----------------------------------------------------------------------------

listDevices();
if (matchMedia("(max-width: 56rem)").matches) $("devices").open = false;
if (Call.isWaiting) start(); // the page was loaded again: the conversation goes on
