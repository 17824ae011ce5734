/**
 * From a picture to a network's input, with the same numbers as zoo.images and zoo.saccades.
 *
 * Pixels are bytes [C, H, W], grey or colour as the network reads them.
 */

const MIN_CROPPED_SIZE = 128; // from this size on a network sees the central 7/8, as in zoo/decode.py
const CENTRAL_SHARE = 0.875;
const PRECISION = 22; // bits of Pillow's fixed-point weights
const MAX_PIXELS = 100e6;

/**
 * Decode a file as its evaluation would: upright, transparency on white, the central square resized.
 * @param {Blob} file
 * @param {Object} data the record of the network's data
 * @returns {Promise<Uint8Array>} bytes [C, size, size]; throws a sentence for what is no picture
 */
export async function decode(file, data) {
  const name = file.name ? `“${file.name}”` : "This";
  if (file.type && !file.type.startsWith("image/")) throw new Error(`${name} is not a picture: it is ${file.type}.`);
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  } catch {
    throw new Error(`${name} is not a picture that this browser can read.`);
  }
  if (bitmap.width * bitmap.height > MAX_PIXELS) throw new Error(`${name} has more than ${MAX_PIXELS / 1e6} megapixels: make it smaller.`);
  return fromBitmap(bitmap, data);
}

/** The same for what a canvas can draw: a bitmap, or a frame of a video. */
export function fromBitmap(bitmap, data) {
  const width = bitmap.videoWidth ?? bitmap.width;
  const height = bitmap.videoHeight ?? bitmap.height;
  const box = centre(data.size, width, height);
  const [left, upper] = [Math.floor(box[0]), Math.floor(box[1])];
  // a margin for the filter, which reads beyond the box
  const margin = Math.ceil((2 * (box[2] - box[0])) / data.size) + 2;
  const [x, y] = [Math.max(0, left - margin), Math.max(0, upper - margin)];
  const right = Math.min(width, Math.ceil(box[2]) + margin);
  const lower = Math.min(height, Math.ceil(box[3]) + margin);
  const canvas = new OffscreenCanvas(right - x, lower - y);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, x, y, right - x, lower - y, 0, 0, right - x, lower - y);
  const image = context.getImageData(0, 0, right - x, lower - y);
  const shifted = [box[0] - x, box[1] - y, box[2] - x, box[3] - y];
  return resize(channels(image, data.channels), image.width, image.height, shifted, data.size, data.channels);
}

/** The box (left, upper, right, lower) that an evaluation sees. */
function centre(size, width, height) {
  if (width === size && height === size) return [0, 0, width, height];
  const resized = size >= MIN_CROPPED_SIZE ? Math.round(size / CENTRAL_SHARE) : size;
  const side = (Math.min(width, height) * size) / resized;
  const [left, upper] = [(width - side) / 2, (height - side) / 2];
  return [left, upper, left + side, upper + side];
}

/** Colour on white, and grey as Pillow weighs it; a map of bytes for each channel. */
function channels({ data, width, height }, count) {
  const maps = Array.from({ length: count }, () => new Uint8Array(width * height));
  for (let i = 0; i < width * height; i++) {
    const alpha = data[4 * i + 3];
    const [r, g, b] = [0, 1, 2].map((k) => onWhite(data[4 * i + k], alpha));
    if (count === 1) maps[0][i] = (r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16;
    else [maps[0][i], maps[1][i], maps[2][i]] = [r, g, b];
  }
  return maps;
}

function onWhite(value, alpha) {
  return alpha === 255 ? value : Math.round((value * alpha + 255 * (255 - alpha)) / 255);
}

/** Resize a box of maps to a square, bicubic, in Pillow's arithmetic. */
function resize(maps, width, height, [left, upper, right, lower], size, count) {
  const out = new Uint8Array(count * size * size);
  const whole = left === 0 && upper === 0 && right === width && lower === height;
  const same = whole && width === size && height === size;
  const across = weights(width, left, right, size);
  const down = weights(height, upper, lower, size);
  maps.forEach((map, channel) => {
    if (same) return out.set(map, channel * size * size);
    const narrow = new Uint8Array(size * height);
    for (let y = 0; y < height; y++)
      across.forEach(({ start, factors }, x) => {
        narrow[y * size + x] = weighted(factors, (k) => map[y * width + start + k]);
      });
    for (let x = 0; x < size; x++)
      down.forEach(({ start, factors }, y) => {
        out[(channel * size + y) * size + x] = weighted(factors, (k) => narrow[(start + k) * size + x]);
      });
  });
  return out;
}

function weighted(factors, value) {
  let sum = 2 ** (PRECISION - 1);
  for (let k = 0; k < factors.length; k++) sum += value(k) * factors[k];
  return Math.min(255, Math.max(0, Math.floor(sum / 2 ** PRECISION)));
}

/** The inputs that each output of one axis reads, and their weights in fixed point. */
function weights(inputs, begin, end, outputs) {
  const scale = (end - begin) / outputs;
  const stretch = Math.max(scale, 1);
  const support = 2 * stretch;
  return Array.from({ length: outputs }, (_, output) => {
    const middle = begin + (output + 0.5) * scale;
    const start = Math.max(0, Math.trunc(middle - support + 0.5));
    const stop = Math.min(inputs, Math.trunc(middle + support + 0.5));
    const raw = Array.from({ length: stop - start }, (_, k) => bicubic((k + start - middle + 0.5) / stretch));
    const sum = raw.reduce((a, b) => a + b, 0);
    const factors = raw.map((weight) => {
      const fixed = (sum ? weight / sum : weight) * 2 ** PRECISION;
      return Math.trunc(fixed < 0 ? fixed - 0.5 : fixed + 0.5);
    });
    return { start, factors };
  });
}

function bicubic(x) {
  const [a, d] = [-0.5, Math.abs(x)];
  if (d < 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
  if (d < 2) return (((d - 5) * d + 8) * d - 4) * a;
  return 0;
}

/**
 * The input of each step: the normalised picture every time, or the frames of simulated saccades.
 * @param {Uint8Array} pixels
 * @returns {Float32Array[]}
 */
export function toInputs(pixels, data, steps) {
  if (data.saccades) return saccades(pixels, data, steps);
  const area = data.size * data.size;
  const { fround } = Math;
  const image = Float32Array.from(pixels, (pixel, i) => {
    const channel = Math.floor(i / area);
    return fround(fround(fround(pixel / 255) - fround(data.mean[channel])) / fround(data.std[channel]));
  });
  return new Array(steps).fill(image);
}

/** Events [2, H, W] of every move: brighter pixels, then darker ones (zoo/saccades.py). */
function saccades(pixels, { size, channels, saccades: { ratio, moves } }, steps) {
  const area = size * size;
  const brightness = new Uint8Array(area);
  for (let i = 0; i < channels * area; i++) brightness[i % area] = Math.max(brightness[i % area], pixels[i]);
  let [least, most] = [255, 0];
  for (const value of brightness) [least, most] = [Math.min(least, value), Math.max(most, value)];
  const threshold = Math.fround(Math.fround(ratio) * (most - least));
  const at = (y, x) => (y >= 0 && y < size && x >= 0 && x < size ? brightness[y * size + x] : 0);
  return moves.slice(0, steps).map(([before, after]) => {
    const frame = new Float32Array(2 * area);
    for (let y = 0; y < size; y++)
      for (let x = 0; x < size; x++) {
        const change = at(y + after[0], x + after[1]) - at(y + before[0], x + before[1]);
        frame[y * size + x] = change > threshold ? 1 : 0;
        frame[area + y * size + x] = -change > threshold ? 1 : 0;
      }
    return frame;
  });
}
