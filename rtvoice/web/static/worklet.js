// The browser's audio thread: the microphone in blocks of 20 ms, and what is to be played.

const FADE_S = 0.005; // after an interruption, so that it does not click
const REPORT_S = 0.05;
const LEVEL_S = 0.1;

class Line extends AudioWorkletProcessor {
  constructor() {
    super();
    this.block = new Int16Array(Math.round(sampleRate / 50));
    this.filled = 0;
    this.queue = [];
    this.position = 0; // in the first entry of the queue
    this.played = 0; // samples since the last `clear`
    this.clears = 0;
    this.told = 0; // of `played`
    this.fading = 0; // samples until what was cleared is silent
    this.last = 0;
    this.peaks = [0, 0];
    this.measured = 0;
    this.port.onmessage = ({ data }) => {
      if (data instanceof Int16Array) this.queue.push(data);
      else this.clear(data.clears);
    };
  }

  clear(clears) {
    this.fading = Math.round(FADE_S * sampleRate);
    this.played = this.told = 0;
    this.clears = clears;
    // What fades out was interrupted: it is heard, and counts no more.
    this.rest = this.queue.length ? this.queue[0].subarray(this.position) : null;
    this.queue = [];
    this.position = 0;
  }

  process([[microphone]], [[loudspeaker]]) {
    if (microphone) this.capture(microphone);
    this.play(loudspeaker);
    this.measured += loudspeaker.length;
    if (this.measured >= LEVEL_S * sampleRate) {
      this.port.postMessage({ peaks: this.peaks });
      this.peaks = [0, 0];
      this.measured = 0;
    }
    return true;
  }

  capture(samples) {
    for (const sample of samples) {
      const value = Math.max(-1, Math.min(1, sample));
      this.peaks[0] = Math.max(this.peaks[0], Math.abs(value));
      this.block[this.filled++] = value * 32767;
      if (this.filled === this.block.length) {
        this.port.postMessage({ block: this.block, at: currentTime });
        this.filled = 0;
      }
    }
  }

  play(samples) {
    const before = this.played;
    for (let i = 0; i < samples.length; i++) {
      samples[i] = this.next();
      this.peaks[1] = Math.max(this.peaks[1], Math.abs(samples[i]));
    }
    const isFirst = before === 0 && this.played > 0;
    const isDry = this.queue.length === 0;
    const untold = this.played - this.told;
    if (untold && (isFirst || isDry || untold >= REPORT_S * sampleRate)) {
      this.told = this.played;
      const ms = (1000 * this.played) / sampleRate;
      this.port.postMessage({ played: ms, clears: this.clears, isDry });
    }
  }

  next() {
    if (this.fading > 0) return this.fade();
    if (!this.queue.length) {
      this.last *= 0.99; // no click where the sound breaks off
      return this.last;
    }
    const sample = this.queue[0][this.position++] / 32768;
    this.played++;
    if (this.position >= this.queue[0].length) {
      this.queue.shift();
      this.position = 0;
    }
    this.last = sample;
    return sample;
  }

  fade() {
    const size = Math.round(FADE_S * sampleRate);
    const at = size - this.fading--;
    if (this.rest && at < this.rest.length) this.last = this.rest[at] / 32768;
    const faded = this.last * (1 - at / size);
    if (this.fading === 0) this.last = 0;
    return faded;
  }
}

registerProcessor("line", Line);
