const COLUMNS = 480, ROWS = 112;  // of a spectrogram, whatever the size it is drawn at
const RANGE = 80;                 // decibels below its loudest point that it shows
const STOPS = [[11, 13, 26], [52, 26, 105], [145, 39, 120], [221, 81, 58], [252, 170, 62],
  [255, 250, 214]];
const PALETTE = Array.from({length: 256}, (_, i) => {
  const at = i / 255 * (STOPS.length - 1), low = Math.min(Math.floor(at), STOPS.length - 2);
  return STOPS[low].map((value, j) => value + (at - low) * (STOPS[low + 1][j] - value));
});
const mel = hertz => 2595 * Math.log10(1 + hertz / 700);
const hertz = mel => 700 * (10 ** (mel / 2595) - 1);

// The Fourier transform of a power of two of complex numbers, in place.
function transform(re, im) {
  const size = re.length;
  for (let i = 1, j = 0; i < size; i++) {
    let bit = size >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) [re[i], re[j], im[i], im[j]] = [re[j], re[i], im[j], im[i]];
  }
  for (let half = 1; half < size; half *= 2) {
    for (let k = 0; k < half; k++) {
      const angle = -Math.PI * k / half, cos = Math.cos(angle), sin = Math.sin(angle);
      for (let i = k; i < size; i += 2 * half) {
        const j = i + half, a = re[j] * cos - im[j] * sin, b = re[j] * sin + im[j] * cos;
        re[j] = re[i] - a; im[j] = im[i] - b;
        re[i] += a; im[i] += b;
      }
    }
  }
}

// Decibels of a clip by time and mel, computed once for each column as its samples arrive.
class Spectrogram {
  constructor(clip) {
    this.clip = clip;
    this.size = 2 ** Math.round(Math.log2(clip.rate / 20));  // a window of about 50 ms
    this.window = Float32Array.from({length: this.size},
      (_, i) => .5 - .5 * Math.cos(2 * Math.PI * (i + .5) / this.size));
    const top = mel(clip.rate / 2), bin = row => hertz(row / ROWS * top) * this.size / clip.rate;
    this.bins = Float32Array.from({length: ROWS + 1}, (_, row) => bin(row));
    [this.re, this.im] = [new Float32Array(this.size), new Float32Array(this.size)];
    this.begin();
  }
  begin() {
    this.total = this.clip.total;
    this.done = 0;
    this.loudest = -Infinity;
    this.values = new Float32Array(COLUMNS * ROWS).fill(-Infinity);
  }
  // Whether there is more to see than before.
  update() {
    if (this.total !== this.clip.total) this.begin();
    const before = this.done, clip = this.clip;
    for (; this.done < COLUMNS; this.done++) {
      const first = Math.round((this.done + .5) / COLUMNS * this.total - this.size / 2);
      if (first + this.size > clip.length && clip.length < this.total) break;
      this.column(first);
    }
    return this.done > before;
  }
  // Two channels are one complex signal, whose two halves hold the power of both.
  column(first) {
    const {clip, size, re, im, bins} = this, {pcm, channels} = clip;
    for (let i = 0; i < size; i++) {
      const at = first + i, inside = at >= 0 && at < clip.length, weight = this.window[i];
      re[i] = inside ? weight * pcm[at * channels] : 0;
      im[i] = inside && channels > 1 ? weight * pcm[at * channels + 1] : 0;
    }
    transform(re, im);
    const power = bin => {
      const other = (size - bin) % size;
      return re[bin] ** 2 + im[bin] ** 2 + re[other] ** 2 + im[other] ** 2;
    };
    for (let row = 0; row < ROWS; row++) {
      const low = Math.floor(bins[row]), high = Math.min(Math.ceil(bins[row + 1]), size / 2);
      let most = 0;
      if (high - low <= 2) {  // between two bins
        const middle = (bins[row] + bins[row + 1]) / 2, bin = Math.floor(middle);
        const part = middle - bin;
        most = (1 - part) * power(bin) + part * power(Math.min(bin + 1, size / 2));
      } else for (let bin = low; bin < high; bin++) most = Math.max(most, power(bin));
      const value = 10 * Math.log10(most);
      this.values[row * COLUMNS + this.done] = value;
      this.loudest = Math.max(this.loudest, value);
    }
  }
  draw(canvas) {
    const small = document.createElement("canvas");
    [small.width, small.height] = [COLUMNS, ROWS];
    const image = new ImageData(COLUMNS, ROWS);
    for (let row = 0; row < ROWS; row++) {
      for (let column = 0; column < COLUMNS; column++) {
        const below = this.loudest - this.values[row * COLUMNS + column];
        const color = PALETTE[Math.max(0, Math.round(255 * (1 - below / RANGE))) || 0];
        image.data.set([...color, 255], 4 * ((ROWS - 1 - row) * COLUMNS + column));
      }
    }
    small.getContext("2d").putImageData(image, 0, 0);
    const {pen, width, height} = sized(canvas), nyquist = this.clip.rate / 2;
    pen.drawImage(small, 0, 0, width, height);
    pen.font = "10px system-ui, sans-serif";
    pen.textBaseline = "middle";
    for (const tick of [250, 1000, 2000, 4000, 8000, 16000]) {
      const y = height * (1 - mel(tick) / mel(nyquist));
      if (y < 8) continue;
      const text = tick < 1000 ? `${tick} Hz` : `${tick / 1000} kHz`;
      pen.fillStyle = "#0008";
      pen.fillRect(2, y - 6, pen.measureText(text).width + 6, 12);
      pen.fillStyle = "#fff";
      pen.fillText(text, 5, y);
    }
  }
}

// A canvas of as many pixels as it has on the screen.
function sized(canvas) {
  const scale = devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
  canvas.width = width * scale;
  canvas.height = height * scale;
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  return {pen, width, height};
}

// Bars as high as the loudest sample under them, the clip's peak the highest; those already heard
// in the stronger colour.
function drawWave(canvas, clip, heard) {
  const style = getComputedStyle(canvas), {pen, width, height} = sized(canvas);
  clip.envelope(Math.floor(width / 4)).forEach((loudest, bar, {length}) => {
    const first = Math.floor(bar * clip.total / length), was = first / clip.rate <= heard;
    const color = first >= clip.length ? "--line" : was ? "--accent" : "--later";
    const tall = Math.max(3, loudest / (clip.peak || 1) * height);
    pen.fillStyle = style.getPropertyValue(color);
    pen.beginPath();
    pen.roundRect(bar * 4, (height - tall) / 2, 3, tall, 1.5);
    pen.fill();
  });
}
