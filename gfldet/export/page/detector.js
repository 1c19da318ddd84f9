// The model: an image -> boxes, in onnxruntime-web's WebAssembly.

import { inputOf } from "./card.js";
import { fit, inverse, rectangle, resize } from "./letterbox.js";

const RUNTIME = new URL("./node_modules/onnxruntime-web/dist/", import.meta.url).href;
const MOST_THREADS = 4; // more of them wait for each other on models this small

// Loads card, runtime and model; `progress` hears the share of the model that has come.  What fails is thrown as an
// Error whose text a person can act on.
export async function load(progress) {
  if (typeof WebAssembly === "undefined" || typeof OffscreenCanvas === "undefined") {
    throw new Error("This browser cannot run the model: it lacks WebAssembly or OffscreenCanvas. A newer one can.");
  }
  const card = await (await get("card.json")).json();
  const planes = inputOf(card);
  const runtime = await loadRuntime();
  const bytes = await read(await get("model.onnx"), progress);
  try {
    const session = await runtime.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
    return new Detector(card, planes, session, runtime.Tensor);
  } catch (error) {
    throw new Error(`onnxruntime-web cannot start the model: ${error.message}`);
  }
}

async function get(name) {
  const url = new URL(name, import.meta.url).href;
  const answer = await fetch(url).catch(() => null);
  if (!answer?.ok) throw new Error(`${name} is missing in the folder of this page. Export it again.`);
  return answer;
}

async function loadRuntime() {
  const runtime = await import(`${RUNTIME}ort.wasm.min.mjs`).catch(() => {
    throw new Error("onnxruntime-web is missing. In the folder of this page type: npm install");
  });
  runtime.env.wasm.wasmPaths = RUNTIME;
  runtime.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(MOST_THREADS, navigator.hardwareConcurrency) : 1;
  return runtime;
}

async function read(answer, progress) {
  const total = Number(answer.headers.get("content-length"));
  const parts = [];
  let loaded = 0;
  for (const reader = answer.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    loaded += value.length;
    if (total) progress(Math.min(1, loaded / total));
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

class Detector {
  constructor(card, planes, session, Tensor) {
    this.card = card;
    this.planes = planes;
    this.session = session;
    this.Tensor = Tensor;
    const canvas = new OffscreenCanvas(1, 1);
    this.context = canvas.getContext("2d", { willReadFrequently: true, colorSpace: "srgb" });
  }

  // Boxes in px of the image, the best first, and how long each step took in ms.
  async detect(bitmap) {
    const started = performance.now();
    const { height, width } = bitmap;
    const { imgsz, multiple, dynamic, pad_colour: grey, batch } = this.card;
    const frame = dynamic === "all" ? rectangle(height, width, imgsz, multiple) : imgsz;
    const place = fit(height, width, frame);
    const input = toInput(this.pixels(bitmap), place, grey, batch, this.planes);
    const prepared = performance.now();
    const outputs = await this.session.run({ images: new this.Tensor("float32", input, [batch, 3, ...frame]) });
    const inferred = performance.now();
    const boxes = chosen(outputs, this.card.names, place);
    const done = performance.now();
    const times = { preprocess: prepared - started, inference: inferred - prepared, total: done - started };
    return { height, width, boxes, times };
  }

  // RGBA bytes; what is transparent lies on white, as gfldet reads it.
  pixels(bitmap) {
    const { context } = this;
    context.canvas.width = bitmap.width; // clears it
    context.canvas.height = bitmap.height;
    context.fillStyle = "white";
    context.fillRect(0, 0, bitmap.width, bitmap.height);
    context.drawImage(bitmap, 0, 0);
    return context.getImageData(0, 0, bitmap.width, bitmap.height).data;
  }
}

// RGBA bytes of an image -> (batch, 3, frameHeight, frameWidth), as `planes` tell: the image first, any others zero.
function toInput(pixels, place, grey, batch, planes) {
  const { height, width, frameHeight, frameWidth, resizedHeight, resizedWidth, top, left } = place;
  const resized = resize(pixels, height, width, resizedHeight, resizedWidth);
  const area = frameHeight * frameWidth;
  const input = new Float32Array(batch * 3 * area);
  planes.forEach(({ source, values }, plane) => {
    input.fill(values[grey], plane * area, (plane + 1) * area);
    for (let y = 0, p = source; y < resizedHeight; y++) {
      let i = plane * area + (y + top) * frameWidth + left;
      for (let x = 0; x < resizedWidth; x++, i++, p += 4) input[i] = values[resized[p]];
    }
  });
  return input;
}

// The outputs of layout "detections", of the first image.
function chosen({ boxes, scores, classes, count }, names, place) {
  return Array.from({ length: Number(count.data[0]) }, (_, i) => {
    const number = Number(classes.data[i]);
    const box = inverse(Array.from(boxes.data.slice(4 * i, 4 * i + 4)), place);
    return { class: number, name: names[number], score: scores.data[i], box };
  });
}
