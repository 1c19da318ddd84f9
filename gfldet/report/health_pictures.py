"""Pictures of findings for a page: a part of an image with its boxes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from gfldet.data.gather import open_image
from gfldet.data.records import Finding, Record
from gfldet.errors import DataError
from gfldet.health.survey import Survey
from gfldet.report.cutouts import cutout, meets, part_around, rect

MAX_BOXES = 200  # of the image's other boxes


@dataclass(frozen=True, eq=False)
class Pictures:
    """The pictures of a survey's images."""

    survey: Survey

    def of(self, finding: Finding) -> str:
        """The image of a finding around its box, or the two of a pair; empty if there is none to show."""
        if finding.image is None:
            return ""
        shown = [self._one(finding.image, finding)]
        if finding.other is not None:
            shown.append(self._one(finding.other, None))
        return f'<div class="pictures">{"".join(shown)}</div>' if all(shown) else ""

    def _one(self, path: Path, finding: Finding | None) -> str:
        record = self._records.get(path)
        if record is None:
            return ""
        try:
            image = open_image(record.path, bits=record.bits)
        except DataError:  # it is gone by now
            return ""
        box = finding.box if finding else None
        part = part_around(box, record.width, record.height)
        rows = record.boxes[:MAX_BOXES].tolist()
        others = [rect(other, part) for other in rows if meets(other, part)]
        return cutout(image, part, record.file_name, "".join([*others, rect(box, part, "it") if box else ""]))

    @cached_property
    def _records(self) -> dict[Path, Record]:
        return {picture.record.path: picture.record for picture in self.survey.pictures}
