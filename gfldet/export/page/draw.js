// Boxes and their labels on a canvas, readable at any size and by colour-blind people (see gfldet/viz/draw.py).

// The colours of Okabe and Ito ("Color Universal Design", 2008) without black, as they are, darker and lighter.
const BASE = [
  [230, 159, 0],
  [86, 180, 233],
  [0, 158, 115],
  [240, 228, 66],
  [0, 114, 178],
  [213, 94, 0],
  [204, 121, 167],
];
const CROWDED = 40; // boxes from which on lines get thinner
const SMALL = 600; // width on the screen below which letters get smaller
const MOST_COVERED = 0.1; // share of a label that may hide others before it is left out

function rgbOf(index) {
  const rgb = BASE[index % BASE.length];
  const shade = Math.floor(index / BASE.length) % 3;
  if (shade === 1) return rgb.map((v) => Math.floor((v * 6) / 10));
  return shade === 2 ? rgb.map((v) => 127 + Math.floor(v / 2)) : rgb;
}

export function classColour(index) {
  return `rgb(${rgbOf(index).join(" ")})`;
}

// Black or white, whichever has more contrast with the class's colour.
export function textColour(index) {
  const [red, green, blue] = rgbOf(index).map((v) => (v / 255) ** 2.2);
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.18 ? "black" : "white";
}

// Draws boxes, the best first and on top.  `scale` is canvas px per image px, `unit` canvas px per px of the screen;
// `only` is the number of a box to bring out, or -1.
export function drawBoxes(context, boxes, scale, unit, only = -1) {
  const line = unit * (boxes.length > CROWDED ? 1.25 : 2);
  const scaled = boxes.map(({ box }) => box.map((v) => v * scale));
  const order = [...boxes.keys()].reverse();
  for (const i of order) {
    context.globalAlpha = only < 0 || only === i ? 1 : 0.35;
    drawFrame(context, scaled[i], line, classColour(boxes[i].class));
  }
  context.globalAlpha = 1;
  const letters = (context.canvas.width < SMALL * unit ? 11 : 12) * unit;
  context.font = `600 ${letters}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  const labels = boxes.map(({ name, score, box }, i) => {
    const whole = `${name} ${score.toFixed(2)}`;
    const room = (box[2] - box[0]) * scale;
    return only === i || context.measureText(whole).width < room ? whole : score.toFixed(2); // the colour names it too
  });
  const places = placeLabels(context, scaled, labels, line, letters, only);
  for (const i of order) if (places[i]) drawLabel(context, places[i], labels[i], boxes[i].class, letters);
}

// A coloured line on a dark one, to be seen on bright and on dark pictures.
function drawFrame(context, [x1, y1, x2, y2], line, colour) {
  context.lineJoin = "round";
  context.strokeStyle = "rgb(0 0 0 / 45%)";
  context.lineWidth = line * 2;
  context.strokeRect(x1, y1, x2 - x1, y2 - y1);
  context.strokeStyle = colour;
  context.lineWidth = line;
  context.strokeRect(x1, y1, x2 - x1, y2 - y1);
}

function drawLabel(context, [left, top, right, bottom], label, index, letters) {
  context.fillStyle = classColour(index);
  context.beginPath();
  context.roundRect(left, top, right - left, bottom - top, letters / 6);
  context.fill();
  context.fillStyle = textColour(index);
  context.fillText(label, left + letters * 0.35, (top + bottom) / 2 + letters * 0.06);
}

// For each label [left, top, right, bottom] on the canvas, or null where it would hide others or be hidden.  Tried in
// turn: above the box, inside its top, below it, each flush left and then flush right.
function placeLabels(context, boxes, labels, line, letters, only) {
  const taken = [];
  const height = letters * 1.5;
  return boxes.map(([x1, y1, x2, y2], i) => {
    if (only >= 0 && only !== i) return null;
    const width = context.measureText(labels[i]).width + letters * 0.7;
    const half = line / 2;
    const tops = [y1 - half - height, y1 - half, y2 + half];
    const lefts = [x1 - half, x2 + half - width];
    const tried = tops.flatMap((top) => lefts.map((left) => inside(context.canvas, left, top, width, height)));
    const covered = tried.map((place) => taken.reduce((sum, other) => sum + common(place, other), 0));
    const least = Math.min(...covered);
    if (least > MOST_COVERED * width * height) return null;
    const place = tried[covered.indexOf(least)];
    taken.push(place);
    return place;
  });
}

function inside(canvas, left, top, width, height) {
  const x = Math.max(0, Math.min(left, canvas.width - width));
  const y = Math.max(0, Math.min(top, canvas.height - height));
  return [x, y, x + width, y + height];
}

// Area that two rectangles share.
function common(a, b) {
  const width = Math.min(a[2], b[2]) - Math.max(a[0], b[0]);
  const height = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
  return Math.max(0, width) * Math.max(0, height);
}
