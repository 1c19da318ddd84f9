"""What a user of ultralytics writes, with the import changed and nothing else: `test_peer_script.py` runs it.

python peer_script.py WEIGHTS DATA_YAML FOLDER_OF_IMAGES, in a folder that may be written to
"""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

from gfldet import Model as YOLO

weights, data, folder = sys.argv[1:]
files = sorted(str(path) for path in Path(folder).glob("*.png"))

# ---- the model
model = YOLO(weights, task="detect")
print(model.task, model.device, model.names)
layers, parameters, gradients, flops = model.info()
model.fuse()
model.to("cpu")

# ---- predict: a file, several, a folder, a stream, arrays, PIL, tensors
results = model(files[0], imgsz=64, conf=0.01)
results = model.predict(source=files[:2], imgsz=64, conf=0.01, iou=0.6, max_det=50, device="cpu", verbose=False)
assert len(results) == 2
assert len(model.predict(folder, imgsz=64, verbose=False)) == len(files)
for result in model.predict(folder, stream=True, imgsz=64, conf=0.01, classes=[0, 1], agnostic_nms=True, verbose=False):
    annotated = result.plot()
    assert annotated.shape == result.orig_img.shape
frame = cv2.imread(files[0])
picture = Image.open(files[0])
tensor = torch.from_numpy(frame[..., ::-1].copy()).permute(2, 0, 1).float().div(255).unsqueeze(0)
for source in (frame, picture, tensor, [frame, frame]):
    results = model(source, imgsz=64, conf=0.01, verbose=False)

# ---- boxes
r = model(files[0], imgsz=64, conf=0.01, verbose=False)[0]
boxes = r.boxes.cpu().numpy()
assert boxes.shape == (len(r), 6)
assert len(boxes) == len(r) > 0
for box in r.boxes:
    x1, y1, x2, y2 = map(int, box.xyxy[0])
    cx, cy, w, h = box.xywh[0].tolist()
    confidence = math.ceil(box.conf[0] * 100) / 100
    label = f"{model.names[int(box.cls[0])]} {float(box.conf):.2f} {confidence}"
    cv2.rectangle(frame, (x1, y1), (x2, y2), (0, 255, 0), 2)
    cv2.putText(frame, label, (x1, y1), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 255, 0), 1)
    c, conf, name = int(box.cls), box.conf.item(), r.names[box.cls[0].item()]
    assert box.id is None
for x1, y1, x2, y2, score, cls in r.boxes.data.tolist():
    print(f"{r.names[int(cls)]} {score:.2f} {x2 - x1:.0f} x {y2 - y1:.0f}")
counts = Counter(r.names[int(c)] for c in r.boxes.cls)
xyxy = r.boxes.xyxy.cpu().numpy().astype(int)
areas = (r.boxes.xyxy[:, 2] - r.boxes.xyxy[:, 0]) * (r.boxes.xyxy[:, 3] - r.boxes.xyxy[:, 1])
assert areas.shape == (len(r),)
assert r.boxes.xyxyn.max() <= 1
classes = r.boxes.cls.long().unique().tolist()
scores = r.boxes.conf.clone().float().to("cpu").detach().cpu().numpy()
assert r.boxes.conf.numel() == scores.size
assert r.boxes.conf[0].cpu().numpy() == scores.max()
best = r.boxes[r.boxes.conf.argmax()]
confident = r[r.boxes.conf >= scores.mean()]
assert len(r[0]) == len(r[:1]) == len(best) == 1
assert 0 < len(confident) <= len(r)
assert [len(one) for one in r] == [1] * len(r)
if r.boxes is not None and r.masks is None and r.keypoints is None and r.probs is None and r.obb is None:
    print(r.verbose(), r.speed["inference"], r.path, r.orig_shape, r.save_dir)

# ---- what is made of them
table = r.summary(normalize=True, decimals=4)
assert set(table[0]) == {"name", "class", "confidence", "box"}
assert json.loads(r.to_json())[0]["box"].keys() == {"x1", "y1", "x2", "y2"}
assert r.to_csv().splitlines()[0] == "name,class,confidence,box"
r.save(filename="result.jpg")
r.save_txt("labels/result.txt", save_conf=True)
r.save_crop(save_dir="crops", file_name="crop")
assert Path("result.jpg").is_file()
assert len(Path("labels/result.txt").read_text().splitlines()) == len(r)
assert len(list(Path("crops").rglob("crop*.jpg"))) == len(r)
assert isinstance(r.plot(pil=True, conf=False, line_width=1, font_size=8, labels=True, boxes=True), Image.Image)
assert r.plot(img=np.zeros_like(r.orig_img), color_mode="instance").shape == r.orig_img.shape
saved = model.predict(
    files[:1], imgsz=64, save=True, save_txt=True, save_conf=True, project="out", name="p", exist_ok=True
)
assert Path(saved[0].save_dir).name == "p"

# ---- train, watch, measure, go on
seen = []
model.add_callback(
    "on_fit_epoch_end", lambda trainer: seen.append((trainer.epoch, trainer.epochs, dict(trainer.metrics)))
)
model.add_callback("on_train_end", lambda trainer: seen.append(trainer.best))
settings = {"imgsz": 64, "batch": 4, "workers": 0, "device": "cpu", "project": "out", "exist_ok": True, "plots": False}
metrics = model.train(
    data=data,
    epochs=1,
    patience=5,
    optimizer="auto",
    seed=1,
    amp=False,
    cache=False,
    name="t",
    verbose=False,
    **settings,
)
assert seen[0][:2] == (0, 1)
assert "metrics/mAP50-95(B)" in seen[0][2]
assert Path(seen[-1]).parent.parent.name == "t"
print(metrics.box.map, metrics.box.map50, metrics.results_dict)
model = YOLO(seen[-1])
metrics = model.val(data=data, split="val", name="v", **settings)
print(metrics.box.map, metrics.box.map50, metrics.box.map75, metrics.box.maps, metrics.box.mp, metrics.box.mr)
model.save("mine.pt")
again = YOLO("mine.pt")
assert again.names == model.names
