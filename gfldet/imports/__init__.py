"""Weights that other programs wrote: read without their code, checked, and turned into checkpoints of ours.

registry.py  the families of files that can be read, and who reads a file
start.py     any file of weights, ours or foreign -> what a model starts from
files.py     a foreign file, opened once
shapes.py    what the shapes in a file tell: its size, its classes, whether it is whole
foreign.py   what a reader gives, and how it says no
save.py      what was read -> a checkpoint of ours
yolov8/      the family YOLOv8
yolov9.py    the family YOLOv9
nanodet.py   the family NanoDet
yolox.py     the family YOLOX
matching.py  which Conv of an ONNX graph is which of a model of ours
resnets.py   ResNets of torchvision, and its detectors on them
"""
