// The page: images and camera pictures go to the worker, what it finds is shown; threshold and classes choose from it.

import { classColour, textColour } from "./draw.js";
import { View } from "./view.js";

const DEFAULT_THRESHOLD = 0.25;
const LEAST_THRESHOLD = 0.05;
const FEW_CLASSES = 12; // up to so many are offered before they are found
const MOST_PROBLEMS = 5;

const element = (id) => document.getElementById(id);
const views = [];
const waiting = new Map(); // id of a job -> what to do with its answer
const hidden = new Set(); // numbers of classes not shown
const seen = new Set(); // numbers of classes found so far
let card = null;
let camera = null; // {stream, view} while it runs
let jobs = 0;

// A worker from a file has a policy of its own; one from a blob stands under the policy of this page.
const start = `import ${JSON.stringify(new URL("worker.js", import.meta.url).href)};`;
const worker = new Worker(URL.createObjectURL(new Blob([start], { type: "text/javascript" })), { type: "module" });
say("Loading the model");
element("progress").hidden = false;
worker.addEventListener("error", () => fail("This browser cannot run the model. A newer one can."));
worker.addEventListener("message", ({ data }) => {
  if (data.card) begin(data.card);
  else if (data.failure) fail(data.failure);
  else if (data.progress) element("progress").value = data.progress;
  else take(data);
});

function begin(loaded) {
  card = loaded;
  const least = Math.max(LEAST_THRESHOLD, Math.ceil(card.conf * 100) / 100);
  element("threshold").min = least;
  element("threshold").value = Math.max(least, DEFAULT_THRESHOLD);
  element("about").textContent = about(card.names);
  element("licence").textContent = `Model: ${card.model}, exported by gfldet ${card.gfldet}. ${card.licence}`;
  document.title = `Detector: ${card.names.slice(0, 3).join(", ")}`;
  makeChips();
  refresh();
  element("controls").disabled = false;
  element("progress").hidden = true;
  element("drop").hidden = false;
  say("Ready");
}

// "Finds RBC, WBC and Platelets"
function about(names) {
  const shown = names.length > 6 ? [...names.slice(0, 5), `${names.length - 5} more classes`] : names;
  const last = shown.at(-1);
  return shown.length === 1 ? `Finds ${last}` : `Finds ${shown.slice(0, -1).join(", ")} and ${last}`;
}

function say(text) {
  element("status").textContent = text;
}

function fail(text) {
  element("progress").hidden = true;
  say("");
  complain(text);
}

function complain(text) {
  const item = document.createElement("li");
  item.textContent = text;
  element("problems").append(item);
  while (element("problems").children.length > MOST_PROBLEMS) element("problems").firstChild.remove();
}

// Images.

function addFiles(files) {
  if (!card || !files.length) return;
  element("problems").replaceChildren();
  for (const file of files) addFile(file);
  arrange();
}

async function addFile(file) {
  const view = new View(file.name || "pasted image", file);
  views.push(view);
  element("results").append(view.figure);
  const { found, bitmap, problem } = await detect(file);
  bitmap?.close();
  if (problem) {
    complain(`${view.title} ${problem}`);
    removeView(view);
  } else if (views.includes(view)) {
    view.showTimes(times(found));
    update(view, found);
    say(`${view.title}: ${view.summary()}`);
  }
}

function detect(image, transfer = []) {
  const id = jobs++;
  worker.postMessage({ id, image }, transfer);
  return new Promise((resolve) => waiting.set(id, resolve));
}

function take(answer) {
  waiting.get(answer.id)(answer);
  waiting.delete(answer.id);
}

function times({ times: { preprocess, inference, total }, width, height }) {
  const [a, b, c] = [preprocess, inference, total].map((value) => value.toFixed(value < 10 ? 1 : 0));
  return `${width} × ${height} px · prepared in ${a} ms, model ${b} ms, total ${c} ms`;
}

function removeView(view) {
  const place = views.indexOf(view);
  if (place >= 0) views.splice(place, 1);
  view.remove();
  arrange();
  refresh();
}

// What depends on how many pictures there are.
function arrange() {
  element("drop").classList.toggle("small", views.length > 0);
  element("clear").hidden = !views.some((view) => view !== camera?.view);
  element("results").classList.toggle("one", views.length === 1);
}

// Threshold and classes.

function threshold() {
  return Number(element("threshold").value);
}

function update(view, found) {
  view.show(found, threshold(), hidden);
  countClasses();
}

function refresh() {
  element("shown-threshold").textContent = threshold().toFixed(2);
  for (const view of views) if (view.found) view.show(view.found, threshold(), hidden);
  countClasses();
}

function makeChips() {
  const chips = card.names.map((name, index) => {
    const chip = document.createElement("button");
    chip.type = "button";
    chip.style.setProperty("--colour", classColour(index));
    chip.style.setProperty("--on-colour", textColour(index));
    chip.setAttribute("aria-pressed", "true");
    chip.append(name, " ", document.createElement("span"));
    chip.addEventListener("click", () => {
      const shown = hidden.delete(index) || !hidden.add(index);
      chip.setAttribute("aria-pressed", String(shown));
      refresh();
    });
    return chip;
  });
  element("classes").replaceChildren(...chips);
}

// How many boxes of each class are above the threshold, shown or hidden.
function countClasses() {
  const counts = new Array(card.names.length).fill(0);
  const limit = Math.fround(threshold());
  for (const view of views) for (const box of view.found?.boxes ?? []) if (box.score > limit) counts[box.class]++;
  [...element("classes").children].forEach((chip, index) => {
    if (counts[index]) seen.add(index);
    chip.hidden = card.names.length > FEW_CLASSES && !seen.has(index);
    chip.lastChild.textContent = counts[index];
  });
}

// Camera.

const CAMERA_PROBLEMS = {
  NotAllowedError: "The camera was refused. Allow it for this page in the browser's settings and start it again.",
  NotFoundError: "This machine has no camera that the browser can find.",
  NotReadableError: "The camera is there but gives no picture; another program may be using it.",
};

async function startCamera() {
  element("problems").replaceChildren();
  if (!navigator.mediaDevices) {
    complain("Browsers give the camera to pages from https or localhost only.");
    return;
  }
  element("camera").disabled = true; // until the person has answered
  try {
    const video = { facingMode: { ideal: "environment" }, width: { ideal: 1280 }, height: { ideal: 720 } };
    const stream = await navigator.mediaDevices.getUserMedia({ video, audio: false });
    await watch(stream);
  } catch (error) {
    complain(CAMERA_PROBLEMS[error.name] ?? `The camera could not be started: ${error.message}`);
  }
  element("camera").disabled = false;
}

async function watch(stream) {
  const video = Object.assign(document.createElement("video"), { srcObject: stream, muted: true, playsInline: true });
  camera = { stream, view: new View("Camera") };
  views.unshift(camera.view);
  camera.view.figure.classList.add("wide");
  camera.view.part(".enlarge").hidden = true;
  element("results").prepend(camera.view.figure);
  stream.getVideoTracks()[0].addEventListener("ended", stopCamera); // pulled out, or stopped by the browser
  element("camera").textContent = "Stop camera";
  element("camera").setAttribute("aria-pressed", "true");
  arrange();
  say("The camera runs");
  await video.play();
  followCamera(camera, video);
}

// One picture after the other, each when the one before is done.
async function followCamera(mine, video) {
  let rate = 0;
  let before = performance.now();
  while (mine === camera) {
    await new Promise(requestAnimationFrame);
    if (!video.videoWidth) continue;
    const picture = await createImageBitmap(video);
    const { found, bitmap, problem } = await detect(picture, [picture]);
    if (mine !== camera) return;
    if (problem) {
      complain(`Camera ${problem}`);
      stopCamera();
      return;
    }
    const now = performance.now();
    const current = 1000 / (now - before);
    rate = rate ? 0.8 * rate + 0.2 * current : current;
    before = now;
    mine.view.showFrame(bitmap);
    mine.view.showTimes(`${times(found)} · ${rate.toFixed(1)} frames/s`);
    update(mine.view, found);
  }
}

function stopCamera() {
  if (!camera) return;
  const { stream, view } = camera;
  camera = null;
  for (const track of stream.getTracks()) track.stop();
  removeView(view);
  element("camera").textContent = "Start camera";
  element("camera").setAttribute("aria-pressed", "false");
  say("The camera is off");
}

// The person.

element("files").addEventListener("change", ({ target }) => {
  addFiles([...target.files]);
  target.value = ""; // so that the same file can be chosen again
});
element("camera").addEventListener("click", () => (camera ? stopCamera() : startCamera()));
element("threshold").addEventListener("input", refresh);
element("clear").addEventListener("click", () => {
  for (const view of views.filter((one) => one !== camera?.view)) removeView(view);
  element("problems").replaceChildren();
  say("Cleared");
});
document.addEventListener("paste", ({ clipboardData }) => addFiles([...clipboardData.files]));
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  element("drop").classList.add("over");
});
document.addEventListener("dragleave", () => element("drop").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  element("drop").classList.remove("over");
  addFiles([...event.dataTransfer.files]);
});
