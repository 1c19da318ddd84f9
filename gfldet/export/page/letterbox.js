// Letterbox: an image resized into a frame without changing its aspect ratio, and the way back.
//
// The same numbers as gfldet/ops/letterbox.py, to the grey level: OpenCV's area averaging where an image shrinks and
// its bilinear interpolation where it grows.  A canvas would resize too, but each browser in its own way.
// Pixels are RGBA bytes as ImageData has them; A is ignored and not written.

// Python's round(): halves go to the even neighbour.
function round(value) {
  const below = Math.floor(value);
  const rest = value - below;
  if (rest !== 0.5) return rest < 0.5 ? below : below + 1;
  return below % 2 === 0 ? below : below + 1;
}

// Where an image goes in a frame of [height, width]: as large as fits, centred.
export function fit(height, width, [frameHeight, frameWidth]) {
  const scale = Math.min(frameHeight / height, frameWidth / width);
  const resizedHeight = Math.min(frameHeight, Math.max(1, round(height * scale)));
  const resizedWidth = Math.min(frameWidth, Math.max(1, round(width * scale)));
  const top = Math.floor((frameHeight - resizedHeight) / 2);
  const left = Math.floor((frameWidth - resizedWidth) / 2);
  return { height, width, frameHeight, frameWidth, resizedHeight, resizedWidth, left, top };
}

// The smallest frame [height, width] of multiples of `multiple` that holds the image scaled to fit `size`.
export function rectangle(height, width, size, multiple) {
  const scale = Math.min(size[0] / height, size[1] / width);
  return [height, width].map((side) => Math.max(1, Math.ceil(round(side * scale) / multiple)) * multiple);
}

// A box [x1, y1, x2, y2] of the frame -> of the image, clipped to it.
export function inverse(box, place) {
  const scales = [place.resizedWidth / place.width, place.resizedHeight / place.height];
  const shifts = [place.left, place.top];
  const limits = [place.width, place.height];
  return box.map((value, i) => Math.min(limits[i % 2], Math.max(0, (value - shifts[i % 2]) / scales[i % 2])));
}

// Pixels at another size.
export function resize(pixels, height, width, newHeight, newWidth) {
  if (newHeight === height && newWidth === width) return pixels;
  const shrinks = newHeight * newWidth < height * width;
  return (shrinks ? shrink : grow)(pixels, height, width, newHeight, newWidth);
}

// What each of `newSize` pixels in a row takes from `size` of them: from `first[i]` on, `count[i]` pixels with the
// shares weights[i * most], weights[i * most + 1] ...  At the edges of its span it takes parts of pixels.
function areaShares(size, newSize) {
  const scale = size / newSize;
  const most = Math.ceil(scale) + 2;
  const first = new Int32Array(newSize);
  const count = new Int32Array(newSize);
  const weights = new Float32Array(newSize * most);
  for (let i = 0; i < newSize; i++) {
    const start = i * scale;
    const end = start + scale;
    const span = Math.min(scale, size - start);
    const whole = Math.min(Math.ceil(start), size - 1);
    const beyond = Math.max(whole, Math.min(Math.floor(end), size - 1));
    let n = 0;
    first[i] = whole;
    if (whole - start > 1e-3) {
      first[i] = whole - 1;
      weights[i * most + n++] = (whole - start) / span;
    }
    for (let j = whole; j < beyond; j++) weights[i * most + n++] = 1 / span;
    if (end - beyond > 1e-3) weights[i * most + n++] = Math.min(Math.min(end - beyond, 1), span) / span;
    count[i] = n;
  }
  return { first, count, weights, most };
}

// Area averaging, in single precision like OpenCV: rows first, then the rows' sums.
function shrink(pixels, height, width, newHeight, newWidth) {
  const whole = width % newWidth === 0 && height % newHeight === 0;
  if (whole) return shrinkWhole(pixels, width, newHeight, newWidth, height / newHeight, width / newWidth);
  const across = areaShares(width, newWidth);
  const down = areaShares(height, newHeight);
  const out = new Uint8ClampedArray(newHeight * newWidth * 4);
  const row = new Float32Array(newWidth * 3);
  const sum = new Float32Array(newWidth * 3);
  for (let y = 0; y < newHeight; y++) {
    sum.fill(0);
    for (let j = 0; j < down.count[y]; j++) {
      shrinkRow(pixels, (down.first[y] + j) * width * 4, across, row);
      const share = down.weights[y * down.most + j];
      for (let i = 0; i < sum.length; i++) sum[i] += Math.fround(share * row[i]);
    }
    for (let x = 0, i = 0, o = y * newWidth * 4; x < newWidth; x++, o += 4) {
      out[o] = sum[i++]; // a clamped array rounds halves to even, as OpenCV does
      out[o + 1] = sum[i++];
      out[o + 2] = sum[i++];
    }
  }
  return out;
}

// One row of pixels, which begins at `offset`, averaged into `row` (RGB).
function shrinkRow(pixels, offset, { first, count, weights, most }, row) {
  for (let x = 0; x < first.length; x++) {
    let r = 0;
    let g = 0;
    let b = 0;
    let p = offset + first[x] * 4;
    for (let k = 0; k < count[x]; k++, p += 4) {
      const weight = weights[x * most + k];
      r = Math.fround(r + Math.fround(pixels[p] * weight));
      g = Math.fround(g + Math.fround(pixels[p + 1] * weight));
      b = Math.fround(b + Math.fround(pixels[p + 2] * weight));
    }
    row[x * 3] = r;
    row[x * 3 + 1] = g;
    row[x * 3 + 2] = b;
  }
}

// The same where `rows` x `columns` whole pixels make one: OpenCV counts these in integers.
function shrinkWhole(pixels, width, newHeight, newWidth, rows, columns) {
  const out = new Uint8ClampedArray(newHeight * newWidth * 4);
  const share = Math.fround(1 / (rows * columns));
  const byTwo = rows === 2 && columns === 2; // the one case where halves go up
  for (let y = 0, o = 0; y < newHeight; y++) {
    for (let x = 0; x < newWidth; x++, o += 4) {
      for (let c = 0; c < 3; c++) {
        let sum = 0;
        for (let j = 0; j < rows; j++) {
          const start = ((y * rows + j) * width + x * columns) * 4 + c;
          for (let k = 0; k < columns; k++) sum += pixels[start + k * 4];
        }
        out[o + c] = byTwo ? (sum + 2) >> 2 : Math.fround(sum * share);
      }
    }
  }
  return out;
}

const ONE = 2048; // 1 in OpenCV's fixed-point numbers

// For each of `newSize` pixels in a row: the two of `size` that it lies between, and the second one's share.
function linearShares(size, newSize) {
  const scale = size / newSize;
  const low = new Int32Array(newSize);
  const high = new Int32Array(newSize);
  const share = new Int32Array(newSize);
  for (let i = 0; i < newSize; i++) {
    const place = Math.fround((i + 0.5) * scale - 0.5);
    const below = Math.floor(place);
    low[i] = Math.max(0, below);
    high[i] = Math.min(size - 1, below + 1);
    share[i] = round(Math.fround(place - below) * ONE);
  }
  return { low, high, share };
}

// Bilinear interpolation between the pixels' centres.
function grow(pixels, height, width, newHeight, newWidth) {
  const across = linearShares(width, newWidth);
  const down = linearShares(height, newHeight);
  const out = new Uint8ClampedArray(newHeight * newWidth * 4);
  for (let y = 0, o = 0; y < newHeight; y++) {
    const upper = down.low[y] * width;
    const lower = down.high[y] * width;
    const b = down.share[y];
    for (let x = 0; x < newWidth; x++, o += 4) {
      const left = across.low[x];
      const right = across.high[x];
      const a = across.share[x];
      for (let c = 0; c < 3; c++) {
        const above = pixels[(upper + left) * 4 + c] * (ONE - a) + pixels[(upper + right) * 4 + c] * a;
        const below = pixels[(lower + left) * 4 + c] * (ONE - a) + pixels[(lower + right) * 4 + c] * a;
        out[o + c] = ((((ONE - b) * (above >> 4)) >> 16) + ((b * (below >> 4)) >> 16) + 2) >> 2;
      }
    }
  }
  return out;
}
