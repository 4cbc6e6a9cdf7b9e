/* Pictures on canvases: one pixel of a picture is `zoom` pixels of the screen, and none is smoothed. */
const TALLEST = 560, LENS = 120, LENS_ZOOM = 4, BRIGHTEST = 64;
const RAMP = [[10, 14, 58], [76, 28, 128], [166, 46, 116], [232, 102, 72], [250, 176, 84], [252, 246, 186]];

function canvasOf(picture) {
  const canvas = element("canvas", "", { width: picture.naturalWidth, height: picture.naturalHeight });
  canvas.getContext("2d", { willReadFrequently: true }).drawImage(picture, 0, 0);
  return canvas;
}

const pixelsOf = (canvas) => canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);

/* Mean difference over R, G and B in colours that grow lighter, on one scale. */
function differenceOf(own, reference) {
  const a = pixelsOf(own), b = pixelsOf(reference);
  for (let n = 0; n < a.data.length; n += 4) {
    let sum = 0;
    for (let k = 0; k < 3; k++) sum += Math.abs(a.data[n + k] - b.data[n + k]);
    const place = Math.min(sum / 3 / BRIGHTEST, 1) * (RAMP.length - 1), below = Math.min(Math.floor(place), RAMP.length - 2);
    for (let k = 0; k < 3; k++)
      a.data[n + k] = RAMP[below][k] + (place - below) * (RAMP[below + 1][k] - RAMP[below][k]);
  }
  const canvas = element("canvas", "", { width: own.width, height: own.height });
  canvas.getContext("2d").putImageData(a, 0, 0);
  return canvas;
}

class View {
  constructor() { this.zoom = Math.min(4, Math.max(1, Math.round(window.devicePixelRatio || 1))); this.x = this.y = 0; }

  /* Draw part of a picture; `wipe` in [0, 1] draws `other` right of that place. */
  draw(canvas, picture, other = null, wipe = 1, lens = null) {
    const dots = window.devicePixelRatio || 1, context = canvas.getContext("2d");
    canvas.style.maxWidth = (picture.width * this.zoom) / dots + "px";
    canvas.width = Math.max(1, Math.round(canvas.clientWidth * dots));
    canvas.height = Math.min(Math.round(TALLEST * dots), Math.max(picture.height * this.zoom, Math.round(120 * dots)));
    context.imageSmoothingEnabled = false;
    this.x = Math.max(0, Math.min(this.x, picture.width - canvas.width / this.zoom));
    this.y = Math.max(0, Math.min(this.y, picture.height - canvas.height / this.zoom));
    const put = (source, from, to, zoom, x, y, left, top, width, height) => {
      context.save();
      context.beginPath();
      context.rect(from, top, to - from, height);
      context.clip();
      context.drawImage(source, left - x * zoom, top - y * zoom, source.width * zoom, source.height * zoom);
      context.restore();
    };
    const width = Math.min(canvas.width, picture.width * this.zoom), cut = Math.round(wipe * width);
    put(picture, 0, cut, this.zoom, this.x, this.y, 0, 0, canvas.width, canvas.height);
    if (other) {
      put(other, cut, canvas.width, this.zoom, this.x, this.y, 0, 0, canvas.width, canvas.height);
      context.fillStyle = "#fff";
      context.fillRect(cut - 1, 0, 2, canvas.height);
    }
    if (lens) {
      const side = Math.round(LENS * dots), zoom = this.zoom * LENS_ZOOM;
      const left = Math.round(lens.x * dots - side / 2), top = Math.round(lens.y * dots - side / 2);
      const x = this.x + (lens.x * dots) / this.zoom - side / 2 / zoom, y = this.y + (lens.y * dots) / this.zoom - side / 2 / zoom;
      context.fillStyle = "#000";
      context.fillRect(left, top, side, side);
      const source = other && lens.x * dots > cut ? other : picture;
      put(source, left, left + side, zoom, x, y, left, top, side, side);
      context.strokeStyle = "#fff";
      context.lineWidth = 2 * dots;
      context.strokeRect(left, top, side, side);
    }
  }

  move(right, down) { this.x += right / this.zoom; this.y += down / this.zoom; }

  scale(zoom, x, y) {
    const dots = window.devicePixelRatio || 1;
    this.x += x * dots * (1 / this.zoom - 1 / zoom);
    this.y += y * dots * (1 / this.zoom - 1 / zoom);
    this.zoom = zoom;
  }
}
