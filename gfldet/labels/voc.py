"""Pascal VOC: an XML file for each picture, in the folders of the VOC sets, with one list of all pictures.

Format: http://host.robots.ox.ac.uk/pascal/VOC/voc2012/devkit_doc.pdf.  Corners are edges in px with decimals, as
`data.formats.voc` reads them, and CVAT.  The format has no place for scores.  labelmap.txt
is what CVAT and datumaro add, which know the classes of VOC itself alone without it.
"""

from __future__ import annotations

from gfldet.labels.picture import Picture, RowFile, Target, data_yaml, xml_text
from gfldet.writing import write_text

LIST = "ImageSets/Main/train.txt"


class Voc:
    """See `picture.Format`."""

    by_stem = True

    def __init__(self, target: Target) -> None:
        self._target = target
        RowFile(target, "data.yaml", data_yaml(train=LIST, names=dict(enumerate(target.names))))
        # A colon ends a name there; CVAT makes the file itself where there is none.
        if not any(":" in name for name in target.names):
            rows = "".join(f"{' '.join(name.split())}:::\n" for name in target.names)
            RowFile(target, "labelmap.txt", f"# label:color_rgb:parts:actions\n{rows}")
        self._list = RowFile(target, LIST)

    def add(self, picture: Picture) -> None:
        picture.put(self._target.folder / "JPEGImages" / picture.file_name)
        path = self._target.folder / "Annotations" / f"{picture.stem}.xml"
        write_text(path, self._annotation(picture))
        self._list.add(f"{picture.stem}\n")

    def end(self) -> None:
        pass

    def _annotation(self, picture: Picture) -> str:
        rows = [
            f"<annotation>\n  <folder>JPEGImages</folder>\n  <filename>{xml_text(picture.file_name)}</filename>\n"
            f"  <size><width>{picture.width}</width><height>{picture.height}</height><depth>3</depth></size>\n"
            "  <segmented>0</segmented>\n"
        ]
        for number, _, (left, top, width, height) in picture.rows():
            rows.append(
                f"  <object>\n    <name>{xml_text(self._target.names[number])}</name>\n    <pose>Unspecified</pose>\n"
                "    <truncated>0</truncated>\n    <difficult>0</difficult>\n"
                f"    <bndbox><xmin>{left:.3f}</xmin><ymin>{top:.3f}</ymin><xmax>{left + width:.3f}</xmax>"
                f"<ymax>{top + height:.3f}</ymax></bndbox>\n  </object>\n"
            )
        return "".join([*rows, "</annotation>\n"])
