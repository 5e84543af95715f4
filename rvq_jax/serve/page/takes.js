// A clip on the page: its pictures, in which one seeks, its player, its settings.
class Take {
  constructor(list, clip, asked, title) {
    const item = $("take").content.cloneNode(true).querySelector("li");
    const part = name => item.querySelector(name);
    Object.assign(this, {item, clip, asked, title, live, from: live?.added ?? 0, drawn: ""});
    this.spectrogram = new Spectrogram(clip);
    this.player = part("audio");
    this.slider = part(".pictures");
    const named = `${title}, seed ${clip.seed}`;
    this.player.ariaLabel = `${named}: player`;
    this.slider.ariaLabel = `${named}: position in its waveform and spectrogram`;
    part(".again").ariaLabel = `Use its settings: ${named}`;
    part(".again").addEventListener("click", () => fill(this));
    this.player.addEventListener("play", () => {
      live?.close();
      for (const other of takes) if (other !== this) other.player.pause();
    });
    for (const name of ["play", "pause", "seeked"])
      this.player.addEventListener(name, () => redraw(this));
    this.slider.addEventListener("pointerdown", event => {
      this.slider.setPointerCapture(event.pointerId);
      this.point(event);
    });
    this.slider.addEventListener("pointermove", event => {
      if (this.slider.hasPointerCapture(event.pointerId)) this.point(event);
    });
    this.slider.addEventListener("keydown", event => this.key(event));
    list.append(item);
    takes.push(this);
    this.count(0);
    redraw(this);
  }
  part(name) { return this.item.querySelector(name); }
  get ready() { return !this.player.hidden; }
  // Whether the sound of its request goes on.
  get isLive() { return !!live && live === this.live && !live.over; }
  // Seconds, where it is played or was stopped; null where it was not.
  get position() {
    if (this.isLive) {
      const heard = live.position - this.from;
      return heard >= 0 && heard < this.clip.total / this.clip.rate ? heard : null;
    }
    return this.player.paused && !this.player.currentTime ? null : this.player.currentTime;
  }
  point(event) {
    const box = this.slider.getBoundingClientRect();
    this.seek((event.clientX - box.left) / box.width * this.clip.seconds);
  }
  seek(seconds) {
    if (!this.ready) return;
    if (this.isLive) live.close();
    this.player.currentTime = Math.min(this.clip.seconds, Math.max(0, seconds));
    redraw(this);
  }
  key(event) {
    const {seconds} = this.clip, at = this.player.currentTime, step = seconds / 50;
    const to = {
      ArrowLeft: at - step, ArrowDown: at - step, ArrowRight: at + step, ArrowUp: at + step,
      PageDown: at - 5 * step, PageUp: at + 5 * step, Home: 0, End: seconds,
    }[event.key];
    if (!this.ready || event.ctrlKey || event.metaKey || event.altKey) return;
    if (to !== undefined) this.seek(to);
    else if (event.key === " ") this.player.paused ? this.player.play() : this.player.pause();
    else return;
    event.preventDefault();
  }
  count(spent) {
    const {clip} = this, seconds = clip.seconds.toFixed(1);
    const whole = clip.length >= clip.expected, total = (clip.expected / clip.rate).toFixed(1);
    const made = whole ? `Made in ${spent < 0.1 ? "under 0.1" : spent.toFixed(1)} s` : "So far";
    this.part(".numbers").textContent =
      `${this.title} · seed ${clip.seed} · ${seconds} ${whole ? "" : `of ${total} `}s`;
    if (!clip.length) return;
    this.part(".pace").textContent = `${made}, ${paceOf(spent, clip.seconds)}.`;
    const level = (20 * Math.log10(clip.peak / 32767)).toFixed(1).replace("-", "−");
    this.part(".peak").textContent = clip.peak
      ? `Both pictures are scaled to its peak, ${level} dB.` : "It is silent.";
  }
  // Once all of it is there.
  finish() {
    const {clip, player} = this, download = this.part(".download");
    const name = this.asked.prompt.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").slice(0, 40);
    clip.expected = clip.length;
    player.src = download.href = URL.createObjectURL(clip.wav());
    download.download = `${name.replace(/^-|-$/g, "") || "clip"}-${clip.seed}.wav`;
    player.hidden = this.part(".actions").hidden = false;
    this.slider.ariaValueMax = clip.seconds.toFixed(2);
    redraw(this);
  }
  remove() {
    this.item.remove();
    takes.splice(takes.indexOf(this), 1);
  }
  draw() {
    const {clip, position} = this, at = position ?? 0;
    const spectrum = this.part(".spectrum"), head = this.part(".head");
    drawWave(this.part(".wave"), clip, position ?? (this.ready ? Infinity : 0));
    const size = `${spectrum.clientWidth} ${devicePixelRatio}`;
    if (this.spectrogram.update() || this.drawn !== size) this.spectrogram.draw(spectrum);
    this.drawn = size;
    head.hidden = position === null;
    head.style.left = `${100 * Math.min(1, at * clip.rate / clip.total)}%`;
    this.slider.ariaValueNow = at.toFixed(2);
    this.slider.ariaValueText = `${at.toFixed(1)} of ${clip.seconds.toFixed(1)} seconds`;
    if (this.isLive || !this.player.paused) redraw(this);
  }
}

// How long it took, beside how long it lasts.
function paceOf(spent, seconds) {
  const factor = seconds / Math.max(spent, 0.001), times = Math.max(factor, 1 / factor);
  if (times < 1.05) return "as fast as it plays";
  const said = times < 10 ? times.toFixed(1) : times.toFixed(0);
  return `${said} times ${factor > 1 ? "faster" : "slower"} than it plays`;
}
