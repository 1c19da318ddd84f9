// What the model's card tells of its input, checked and made ready.

const FORMAT = "gfldet-export";
const VERSION = 1; // the page and its card are written together, so this is the only one that it meets
const NUMBER = "-?\\d+(?:\\.\\d+)?(?:e-?\\d+)?";
const NUMBERS = `\\[${NUMBER}, ${NUMBER}, ${NUMBER}\\]`;
const NORMALISATION = new RegExp(`^(?:x(?: / (${NUMBER}))?|\\(x - (${NUMBERS})\\) / (${NUMBERS}))$`);
const AGAIN = "Export the page again with the gfldet that wrote the model.";

// For each channel of the input, in its order: which of R, G and B it is (0 to 2), and the value of each grey level.
export function inputOf({ format, channels, normalisation, pad_colour: grey }) {
  if (format !== `${FORMAT}-${VERSION}`) {
    throw new Error(`card.json has the format ${format}, this page reads ${FORMAT}-${VERSION}. ${AGAIN}`);
  }
  if (channels !== "RGB" && channels !== "BGR") {
    throw new Error(`card.json asks for channels ${channels}, this page gives RGB or BGR. ${AGAIN}`);
  }
  if (!Number.isInteger(grey) || grey < 0 || grey > 255) {
    throw new Error(`card.json asks for the padding ${grey}, this page gives a grey from 0 to 255. ${AGAIN}`);
  }
  const found = NORMALISATION.exec(normalisation);
  const mean = found?.[2] ? JSON.parse(found[2]) : [0, 0, 0];
  const scale = found?.[3] ? JSON.parse(found[3]) : Array(3).fill(Number(found?.[1] ?? 1));
  if (!found || scale.includes(0) || ![...mean, ...scale].every(Number.isFinite)) {
    throw new Error(`card.json asks for the normalisation ${normalisation}, which this page does not know. ${AGAIN}`);
  }
  return [0, 1, 2].map((plane) => ({
    source: channels === "RGB" ? plane : 2 - plane,
    values: Float32Array.from({ length: 256 }, (_, x) => (x - mean[plane]) / scale[plane]),
  }));
}
