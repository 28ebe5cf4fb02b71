// The microphone and the loudspeaker of the browser.

const RATE = 24000; // what the service uses: nothing has to be converted

/** Why there is no sound, in a sentence, and what to do. */
export class SoundError extends Error {}

export class Line {
  /**
   * @param {{sound: (pcm: Int16Array) => void, played: (ms: number, clears: number) => void,
   *   levels: (input: number, output: number) => void, lost: () => void}} on
   */
  constructor(on) {
    this.on = on;
    this.context = null;
    this.stream = null;
    this.source = null;
    this.node = null;
    this.clears = 0;
  }

  get rate() {
    return this.context.sampleRate;
  }

  /** Whether the browser holds the sound back until something is pressed. */
  get isHeldBack() {
    return this.context !== null && this.context.state !== "running";
  }

  /** Open both. Raises SoundError. */
  async open(microphone = "", loudspeaker = "") {
    this.stream = await capture(microphone);
    try {
      await this.connect(RATE);
    } catch {
      await this.connect(undefined); // Firefox captures at the rate of the card only
    }
    if (loudspeaker) await this.useLoudspeaker(loudspeaker).catch(() => {});
    this.watch();
  }

  async connect(sampleRate) {
    if (this.node) this.node.port.onmessage = null;
    await this.context?.close();
    const context = (this.context = new AudioContext({ sampleRate, latencyHint: "interactive" }));
    await context.audioWorklet.addModule(new URL("worklet.js", import.meta.url));
    this.node = new AudioWorkletNode(context, "line", { outputChannelCount: [1] });
    this.node.port.onmessage = ({ data }) => this.take(data);
    this.source = context.createMediaStreamSource(this.stream);
    this.source.connect(this.node).connect(context.destination);
    await Promise.race([context.resume(), new Promise((done) => setTimeout(done, 300))]);
  }

  take(data) {
    if (data.block) this.on.sound(data.block);
    else if (data.peaks) this.on.levels(...data.peaks);
    else this.report(data);
  }

  /** Say what was heard: less than was played, for the sound takes its time to the loudspeaker. */
  report({ played, clears, isDry }) {
    const late = Math.min(400, 1000 * (this.context.outputLatency || this.context.baseLatency || 0));
    if (clears !== this.clears) return;
    this.on.played(Math.max(0, played - late), clears);
    clearTimeout(this.rest);
    if (isDry && late) {
      this.rest = setTimeout(() => clears === this.clears && this.on.played(played, clears), late);
    }
  }

  play(pcm) {
    this.node?.port.postMessage(pcm, [pcm.buffer]);
  }

  clear(clears) {
    this.clears = clears;
    this.node?.port.postMessage({ clears });
  }

  mute(muted) {
    for (const track of this.stream?.getAudioTracks() ?? []) track.enabled = !muted;
  }

  async resume() {
    await this.context?.resume();
  }

  async useMicrophone(id) {
    const stream = await capture(id);
    const enabled = this.stream.getAudioTracks()[0]?.enabled ?? true;
    this.stop();
    this.source.disconnect();
    this.stream = stream;
    this.mute(!enabled);
    this.source = this.context.createMediaStreamSource(stream);
    this.source.connect(this.node);
    this.watch();
  }

  async useLoudspeaker(id) {
    if (this.context.setSinkId) {
      await this.context.setSinkId(id);
    } else {
      this.element ??= new Audio();
      const sink = this.context.createMediaStreamDestination();
      this.element.srcObject = sink.stream;
      await this.element.setSinkId(id);
      this.node.disconnect();
      this.node.connect(sink);
      await this.element.play();
    }
  }

  watch() {
    const [track] = this.stream.getAudioTracks();
    track.onended = () => this.on.lost(); // unplugged, or the permission was withdrawn
  }

  stop() {
    for (const track of this.stream?.getTracks() ?? []) {
      track.onended = null;
      track.stop();
    }
  }

  async close() {
    clearTimeout(this.rest);
    this.stop();
    if (this.node) this.node.port.onmessage = null; // what it has sent already still comes
    if (this.context && this.context.state !== "closed") await this.context.close();
    this.context = this.node = this.stream = null;
  }
}

export const canChooseLoudspeaker = () =>
  "setSinkId" in AudioContext.prototype || "setSinkId" in HTMLMediaElement.prototype;

/** The devices of a kind, as [id, name]; without a permission the browser gives no names. */
export async function devices(kind) {
  const all = (await navigator.mediaDevices?.enumerateDevices?.()) ?? [];
  return all
    .filter((one) => one.kind === kind && one.deviceId && one.deviceId !== "default")
    .map((one, at) => [one.deviceId, one.label || `${kind} ${at + 1}`]);
}

async function capture(id) {
  if (!window.isSecureContext || !navigator.mediaDevices) {
    throw new SoundError(
      "The browser gives the microphone only to a page with https:// or on this machine: open " +
        "the page at http://127.0.0.1, or start the program with --tls-cert and --tls-key.",
    );
  }
  const audio = {
    channelCount: 1,
    echoCancellation: true,
    noiseSuppression: true,
    autoGainControl: true,
    ...(id && { deviceId: { exact: id } }),
  };
  try {
    return await navigator.mediaDevices.getUserMedia({ audio });
  } catch (error) {
    throw new SoundError(SENTENCES[error.name] ?? `The microphone cannot be used: ${error.message}.`);
  }
}

const SENTENCES = {
  NotAllowedError:
    "The browser may not use the microphone: allow it for this page (the symbol beside the " +
    "address), and press Start again.",
  NotFoundError: "There is no microphone: plug one in, and press Start again.",
  NotReadableError:
    "The microphone is in use by another program, or the system keeps it back: end that program, " +
    "and press Start again.",
  OverconstrainedError: "The chosen microphone is gone: choose another one, and press Start again.",
};
