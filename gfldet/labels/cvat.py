"""CVAT's own XML, version 1.1, for images.

Format: https://docs.cvat.ai/docs/other/xml_format.  CVAT finds the picture of a task by its name.  It has no place for
scores.
"""

from __future__ import annotations

from gfldet.labels.picture import Picture, RowFile, Target, xml_text, xml_value


class Cvat:
    """See `picture.Format`."""

    by_stem = False

    def __init__(self, target: Target) -> None:
        self._target = target
        labels = "".join(
            f"        <label><name>{xml_text(name)}</name><type>rectangle</type><attributes></attributes></label>\n"
            for name in target.names
        )
        head = (
            '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n  <meta>\n    <task>\n'
            f"      <mode>annotation</mode>\n      <labels>\n{labels}      </labels>\n    </task>\n  </meta>\n"
        )
        self._file = RowFile(target, "annotations.xml", head)
        self._count = 0

    def add(self, picture: Picture) -> None:
        rows = [
            f'  <image id="{self._count}" name={xml_value(picture.file_name)} width="{picture.width}" '
            f'height="{picture.height}">\n'
        ]
        for number, _, (left, top, width, height) in picture.rows():
            rows.append(
                f'    <box label={xml_value(self._target.names[number])} source="auto" occluded="0" xtl="{left:.3f}" '
                f'ytl="{top:.3f}" xbr="{left + width:.3f}" ybr="{top + height:.3f}" z_order="0"></box>\n'
            )
        self._file.add("".join([*rows, "  </image>\n"]))
        self._count += 1
        if picture.path is None:
            picture.put(self._target.folder / "images" / picture.file_name)

    def end(self) -> None:
        self._file.end("</annotations>\n")
