// The detector beside the page, so that the page stays at hand while it computes.
//
//   in   {id, image: a file (Blob) or a picture of the camera (ImageBitmap)}
//   out  {progress}, then {card} or {failure}; for each image {id, found, bitmap} or {id, problem}

import { load } from "./detector.js";

const DECODING = { imageOrientation: "from-image", colorSpaceConversion: "none", premultiplyAlpha: "none" };

const detector = load((progress) => postMessage({ progress }));
detector.then(
  ({ card }) => postMessage({ card }),
  (error) => postMessage({ failure: error.message }),
);

async function answer({ id, image }) {
  const isFile = image instanceof Blob;
  const bitmap = isFile ? await createImageBitmap(image, DECODING).catch(() => null) : image;
  if (bitmap === null) {
    postMessage({ id, problem: "is no image that this browser can read" });
    return;
  }
  try {
    const found = await (await detector).detect(bitmap);
    postMessage({ id, found, bitmap }, [bitmap]); // a picture of the camera is shown with its own boxes
  } catch (error) {
    const size = `${bitmap.width} x ${bitmap.height} px`;
    postMessage({ id, problem: `(${size}) could not be handled; it may be too large for this browser: ${error.message}` });
  }
}

let last = Promise.resolve(); // one at a time, in turn
addEventListener("message", ({ data }) => {
  last = last.then(() => answer(data));
});
