// The two sides of a recording as waves.

const BAR = 2; // pixels
const SPACE = 1;
const LEAST = 0.02; // of the height, so that silence is a line
const QUIETEST = 0.05; // what counts as loud, on a call that has nothing louder

export class Waveform {
  /** @param {HTMLElement} place has a .wave with a canvas for each track */
  constructor(place) {
    this.waves = [...place.querySelectorAll(".wave")];
    this.peaks = {};
    new ResizeObserver(() => this.draw()).observe(place);
    for (const query of ["(prefers-color-scheme: dark)", "(forced-colors: active)"]) {
      matchMedia(query).addEventListener("change", () => this.draw());
    }
  }

  /** @param {Record<string, number[]>} peaks from 0 to 1, of each track */
  show(peaks) {
    const loudest = Math.max(QUIETEST, ...Object.values(peaks).flat());
    this.peaks = Object.fromEntries(Object.entries(peaks).map(([track, heights]) => [track, heights.map((one) => one / loudest)]));
    this.draw();
  }

  draw() {
    for (const wave of this.waves) drawWave(wave.querySelector("canvas"), this.peaks[wave.dataset.track] ?? []);
  }
}

/** @param {HTMLCanvasElement} canvas @param {number[]} peaks */
function drawWave(canvas, peaks) {
  const [width, height, scale] = [canvas.clientWidth, canvas.clientHeight, devicePixelRatio];
  if (!width || !peaks.length) return;
  [canvas.width, canvas.height] = [width * scale, height * scale];
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  pen.fillStyle = getComputedStyle(canvas).color;
  const count = Math.floor(width / (BAR + SPACE));
  for (let bar = 0; bar < count; bar++) {
    const part = peaks.slice(Math.floor((bar * peaks.length) / count), Math.max(1, Math.ceil(((bar + 1) * peaks.length) / count)));
    const tall = Math.max(LEAST, ...part) * height;
    pen.fillRect(bar * (BAR + SPACE), (height - tall) / 2, BAR, tall);
  }
}
