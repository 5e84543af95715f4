"use strict";
const LEAD = 0.15;  // seconds between scheduling the first sound and hearing it

// The samples of a clip, interleaved, as they arrive.
class Clip {
  constructor({rate, channels, samples, seed}) {
    Object.assign(this, {rate, channels, seed, expected: samples, length: 0, peak: 0});
    this.start = performance.now();
    this.pcm = new Int16Array(samples * channels);
  }
  add(pcm) {
    const end = this.length * this.channels + pcm.length;
    if (end > this.pcm.length) {
      const longer = new Int16Array(2 * end);
      longer.set(this.pcm);
      this.pcm = longer;
    }
    this.pcm.set(pcm, this.length * this.channels);
    this.length = end / this.channels;
    for (const sample of pcm) this.peak = Math.max(this.peak, Math.abs(sample));
  }
  get seconds() { return this.length / this.rate; }
  get total() { return Math.max(this.expected, this.length); }
  // The loudest sample of each of so many parts of the whole; 0 where none has arrived.
  envelope(parts) {
    const key = `${parts} ${this.length} ${this.total}`;
    if (this.parts !== key) {
      this.loudest = Array.from({length: parts}, (_, part) => {
        const first = Math.floor(part * this.total / parts), {channels, length} = this;
        const end = Math.min(Math.floor((part + 1) * this.total / parts), length) * channels;
        let most = 0;
        for (let i = first * channels; i < end; i++) most = Math.max(most, Math.abs(this.pcm[i]));
        return most;
      });
      this.parts = key;
    }
    return this.loudest;
  }
  wav() {
    const bytes = 2 * this.length * this.channels, head = new DataView(new ArrayBuffer(44));
    const word = (at, text) => [...text].forEach((c, i) => head.setUint8(at + i, c.charCodeAt(0)));
    word(0, "RIFF"); head.setUint32(4, 36 + bytes, true); word(8, "WAVEfmt ");
    head.setUint32(16, 16, true); head.setUint16(20, 1, true);
    head.setUint16(22, this.channels, true); head.setUint32(24, this.rate, true);
    head.setUint32(28, 2 * this.rate * this.channels, true);
    head.setUint16(32, 2 * this.channels, true); head.setUint16(34, 16, true);
    word(36, "data"); head.setUint32(40, bytes, true);
    const samples = this.pcm.subarray(0, this.length * this.channels);
    return new Blob([head, samples], {type: "audio/wav"});
  }
}

// Plays chunks back to back, and takes one after another. When it runs dry it waits for a second of
// sound, then for two, four …: a few pauses are easier on the ear than one after each chunk.
class Live {
  constructor(rate) {
    this.context = new AudioContext({sampleRate: rate});
    Object.assign(this, {end: 0, wait: 0, played: 0, added: 0, held: [], spans: []});
  }
  get dry() { return this.end < this.context.currentTime || !this.spans.length; }
  add(pcm, channels, rate) {
    const buffer = this.context.createBuffer(channels, pcm.length / channels, rate);
    for (let channel = 0; channel < channels; channel++) {
      const data = buffer.getChannelData(channel);
      for (let i = 0; i < data.length; i++) data[i] = pcm[i * channels + channel] / 32767;
    }
    if (this.dry && !this.held.length && this.spans.length) this.wait = 2 * this.wait || 1;
    this.held.push(buffer);
    this.added += buffer.duration;
    const seconds = this.held.reduce((sum, held) => sum + held.duration, 0);
    if (!this.dry || seconds >= this.wait) this.flush();
  }
  flush() {
    for (const buffer of this.held) {
      const rate = buffer.sampleRate;
      if (this.dry) this.end = Math.ceil((this.context.currentTime + LEAD) * rate) / rate;
      const source = this.context.createBufferSource();
      source.buffer = buffer;
      source.connect(this.context.destination);
      source.start(this.end);
      this.spans.push({at: this.end, from: this.played, length: buffer.duration});
      this.end += buffer.duration;
      this.played += buffer.duration;
    }
    this.held = [];
  }
  // Seconds heard so far.
  get position() {
    const now = this.context.currentTime, span = this.spans.findLast(span => span.at <= now);
    return span ? span.from + Math.min(span.length, now - span.at) : 0;
  }
  get over() { return this.context.state === "closed" || (!request && this.dry); }
  close() { if (this.context.state !== "closed") this.context.close(); }
}

// One object per line of the answer.
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const {value, done} = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) yield JSON.parse(line);
  }
}
