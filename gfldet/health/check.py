"""The check of a data set: a survey, and all findings from it in one list."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from gfldet.data.findings import findings_of_training
from gfldet.data.records import SEVERITIES, Finding, Severity
from gfldet.health.boxes import findings_of_boxes
from gfldet.health.classes import findings_of_classes
from gfldet.health.codes import KINDS
from gfldet.health.pictures import findings_of_pictures
from gfldet.health.survey import Survey

_TOLD_BY_PLACE = {"class-without-boxes", "shared-images"}  # of training, which tells them in one line
_MORE_EXACT = {"box-outside": {"clipped-boxes", "boxes-without-area"}}  # what a finding of the same box makes needless


@dataclass(frozen=True, eq=False)
class Health:
    """What a check finds: the gravest first, then by kind, and of each kind the worst first."""

    survey: Survey
    findings: tuple[Finding, ...]

    @cached_property
    def counts(self) -> Mapping[Severity, int]:
        """How many findings of each severity there are."""
        counts = Counter(finding.severity for finding in self.findings)
        return {severity: counts[severity] for severity in SEVERITIES}

    def fails(self, least: str) -> bool:
        """Whether there is a finding of the severity `least` or a graver one; "never" is no severity."""
        grave = SEVERITIES[: SEVERITIES.index(least) + 1] if least in SEVERITIES else ()
        return any(self.counts[severity] for severity in grave)


def check(survey: Survey) -> Health:
    """All findings of a survey."""
    found = [
        *_of_spec(survey),
        *(finding for reading in survey.readings for finding in reading.findings),
        *_of_training(survey),
        *findings_of_boxes(survey),
        *findings_of_classes(survey),
        *findings_of_pictures(survey),
    ]
    order = {code: number for number, code in enumerate(KINDS)}
    found = _without_less_exact(found)
    found.sort(key=lambda one: (SEVERITIES.index(one.severity), order.get(one.code, len(order)), one.code))
    return Health(survey, tuple(found))


def _of_spec(survey: Survey) -> list[Finding]:
    spec = survey.spec
    found = [Finding("how-read", "notice", notice, spec.source) for notice in spec.notices]
    if spec.train is None:
        text = f"{spec.source}: has no train split; it has: {', '.join(spec.splits)}"
        found.append(Finding("no-train-split", "error", text, spec.source))
    elif spec.val is None:
        text = f"{spec.source}: no val split; name one, set val_share, or train with val=false"
        found.append(Finding("no-val-split", "error", text, spec.source))
    return found


def _of_training(survey: Survey) -> list[Finding]:
    """What a training run tells of the splits as a whole."""
    train = survey.split("train")
    if train is None or not train.records:
        return []
    val = survey.split("val")
    found = findings_of_training(train, val if val and val.records else None, survey.frame)
    return [finding for finding in found if finding.code not in _TOLD_BY_PLACE]


def _without_less_exact(found: list[Finding]) -> list[Finding]:
    needless = {
        (code, finding.split, finding.image, finding.box)
        for finding in found
        for code in _MORE_EXACT.get(finding.code, ())
    }
    return [one for one in found if (one.code, one.split, one.image, one.box) not in needless]
