// The socket of the conversation: it is opened again when it is lost, with the token.

const WAITS_MS = [0, 250, 500, 1000, 2000, 4000];
const SILENT_MS = 8000; // without a message for this long, a running socket is dead
const KEPT_S = 1; // so long a loss of the socket may be for speech to go on as if there was none
const LOUD = 600; // a sample of speech, not of a silent room
const TOKEN = "rtvoice-token";

export class Call {
  /** @param {{sound, clear, view, refused, state, over}} on */
  constructor(on, key) {
    this.on = on;
    this.key = key;
    this.socket = null;
    this.kept = [];
    this.keptSamples = 0;
    this.tries = 0;
    this.isOpen = false; // whether the hello was answered
    this.isStarted = false; // what is said before would be late for ever
    this.isOver = false;
    this.wasEnded = false;
    this.failure = "";
  }

  /** Whether a conversation of this tab may still go on. */
  static get isWaiting() {
    return sessionStorage.getItem(TOKEN) !== null;
  }

  static forget() {
    sessionStorage.removeItem(TOKEN);
  }

  start(rate) {
    this.rate = rate;
    this.heardAt = Date.now();
    this.watchdog = setInterval(() => this.look(), 2000);
    this.wake = () => document.visibilityState === "visible" && this.look();
    addEventListener("online", this.wake);
    document.addEventListener("visibilitychange", this.wake);
    this.connect();
  }

  connect() {
    clearTimeout(this.timer);
    const token = sessionStorage.getItem(TOKEN);
    const url = new URL("talk", location.href);
    url.protocol = url.protocol.replace("http", "ws");
    url.search = new URLSearchParams({
      ...(this.key && { key: this.key }),
      ...(token && { token }),
    });
    const socket = (this.socket = new WebSocket(url));
    socket.binaryType = "arraybuffer";
    const mine = (handle) => (event) => socket === this.socket && !this.isOver && handle(event);
    socket.onopen = mine(() => {
      socket.send(JSON.stringify({ rate: this.rate, view: true, ...(token && { token }) }));
    });
    socket.onmessage = mine(({ data }) => {
      this.heardAt = Date.now();
      if (data instanceof ArrayBuffer) this.on.sound(new Int16Array(data));
      else this.take(JSON.parse(data));
    });
    socket.onclose = mine((event) => this.closed(event));
  }

  take(told) {
    switch (told.type) {
      case "hello":
        sessionStorage.setItem(TOKEN, told.token);
        this.isOpen = true;
        this.tries = 0;
        this.on.state("open", told);
        this.flush();
        break;
      case "started":
        this.isStarted = true;
        break;
      case "clear":
        this.on.clear(told.clears);
        break;
      case "view":
        if (told.state && told.state.phase !== "starting") this.isStarted = true;
        if (told.state?.failure) this.failure = told.state.failure;
        this.on.view(told);
        break;
      case "refused":
        this.on.refused(told.text);
        break;
      case "ended":
        this.wasEnded = true;
        this.end(told.reason);
        break;
    }
  }

  closed({ code, reason }) {
    const wasOpen = this.isOpen;
    this.isOpen = false;
    if (this.failure || code === 1011) {
      this.end(this.failure || reason, true);
    } else if (code === 1000) {
      this.end(reason || "the conversation is over");
    } else if (code === 1008 && !wasOpen && sessionStorage.getItem(TOKEN)) {
      this.end("The conversation has ended while this page was away.", true);
    } else if ([1001, 1007, 1008, 1009, 1013].includes(code)) {
      this.end(reason || "The program has ended the conversation.", true);
    } else {
      this.again(wasOpen);
    }
  }

  /** Try again later; the first time without a token, say why it does not work. */
  async again(wasOpen) {
    const isFirst = !wasOpen && !sessionStorage.getItem(TOKEN);
    const problem = await problemAt(this.key);
    if (this.isOver) return;
    if (isFirst && this.tries >= 2) {
      this.end(problem || "The socket of the conversation cannot be opened.", true);
      return;
    }
    if (isFirst && problem && !problem.startsWith(AWAY)) {
      this.end(problem, true);
      return;
    }
    this.on.state("lost", problem);
    const wait = WAITS_MS[Math.min(this.tries++, WAITS_MS.length - 1)];
    this.timer = setTimeout(() => this.connect(), wait * (0.8 + 0.4 * Math.random()));
  }

  /** After a sleep of the machine, or silence of the socket: open another one. */
  look() {
    const now = Date.now();
    const slept = now - (this.lookedAt ?? now) > 6000;
    this.lookedAt = now;
    const isSilent = this.isOpen && now - this.heardAt > SILENT_MS;
    if (this.isOver || (!slept && !isSilent && navigator.onLine !== false && this.isOpen)) return;
    if (!this.isOpen && this.socket?.readyState === WebSocket.CONNECTING && !slept) return;
    if (!this.isOpen && !slept && this.timer) return;
    this.isOpen = false;
    this.heardAt = now;
    this.on.state("lost", "");
    this.connect(); // the service closes the old one
  }

  send(type, fields = {}) {
    if (this.isOpen) this.socket.send(JSON.stringify({ type, ...fields }));
    return this.isOpen;
  }

  image(bytes, fields) {
    const isSent = this.send("image", { bytes: bytes.byteLength, ...fields });
    if (isSent) this.socket.send(bytes);
    return isSent;
  }

  /** Send a block of the microphone; after a short loss of the socket, what was said meanwhile. */
  speak(pcm) {
    if (!this.isStarted) return;
    if (this.isOpen) {
      this.socket.send(pcm);
      return;
    }
    this.keptSamples += pcm.length;
    if (this.keptSamples <= KEPT_S * this.rate) this.kept.push(pcm);
    else this.kept = [];
  }

  flush() {
    const isShort = this.keptSamples <= KEPT_S * this.rate;
    const isSpeech = this.kept.some((pcm) => pcm.some((sample) => Math.abs(sample) > LOUD));
    // Silence was heard in its place already: to send it too would put all that follows later.
    if (isShort && isSpeech) for (const pcm of this.kept) this.socket.send(pcm);
    this.kept = [];
    this.keptSamples = 0;
  }

  /** End the conversation in order. */
  leave() {
    if (this.send("stop")) {
      this.timer = setTimeout(() => this.end("you have left"), 6000);
    } else {
      this.end("you have left");
    }
  }

  end(reason, isTrouble = false) {
    if (this.isOver) return;
    this.isOver = true;
    Call.forget();
    clearInterval(this.watchdog);
    clearTimeout(this.timer);
    removeEventListener("online", this.wake);
    document.removeEventListener("visibilitychange", this.wake);
    this.socket?.close();
    this.on.over(reason, isTrouble);
  }
}

const AWAY = "The program at this address does not answer";

/** Ask the program why it refuses, which a browser does not tell; empty: it does not refuse. */
export async function problemAt(key) {
  const url = new URL("ready", location.href);
  if (key) url.search = new URLSearchParams({ key });
  try {
    const answer = await fetch(url, { signal: AbortSignal.timeout(3000) });
    if (answer.status === 403) return (await answer.text()).trim();
    return (await answer.json()).text;
  } catch {
    return `${AWAY}: is it still running?`;
  }
}
