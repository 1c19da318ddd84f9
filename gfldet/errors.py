"""Every exception that gfldet raises on purpose.

    GfldetError
    +-- UserError            the input is wrong: the CLI prints one message and exits with 2
    |   +-- ConfigError      a setting or a model YAML: unknown key, wrong type, out of range
    |   +-- DataError        a data YAML, a label file, an image, or a source to predict on
    |   +-- CheckpointError  a file that is not a gfldet checkpoint, or does not fit the request
    |   +-- OutputError      a run folder or file that cannot be written
    |   +-- DownloadError    public weights that the user asked for and that did not arrive
    +-- WorkError            the input was fine but the work failed: the CLI exits with 1
        +-- LostError        another process of the run is gone

    Notice                   not an error: a Python warning about settings that were changed or have no effect

A message states the value found, what is allowed and what to do next.  An error about several problems lists all of
them, one per line, so that the user can fix a data set in one pass.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches

LONGEST_LINE = 4000  # letters of a line for people; a path may have as many
_PASSWORDS = (  # in addresses, of which paths keep one slash: user:password@host, where a port is none, and ?password=
    re.compile(r"(\b[a-zA-Z][\w+.-]+://?[^\s/:@]*:)(?!\d+/)\S*(?=@)"),
    re.compile(r"(\w://?\S*?\b(?:password|passwd|pwd|token)=)[^\s&'\"]*[^\s&'\":]", re.IGNORECASE),
)


class GfldetError(Exception):
    """Root of all errors that gfldet raises on purpose.  Its text is `plain`, whatever a file's name has in it.

    agreed  all processes of the run raise it
    told    whether another process of the run tells it, so that this one need not; None before they have met, when each
            finds the same and the first on a machine tells
    """

    agreed = False
    told: bool | None = None

    def __str__(self) -> str:
        return plain(super().__str__())


class UserError(GfldetError):
    """What the user gave cannot be used; nothing was written."""


class ConfigError(UserError):
    """A setting or a model description is wrong."""


class DataError(UserError):
    """A data YAML, label file, image or prediction source is wrong."""


class CheckpointError(UserError):
    """A checkpoint cannot be read, or does not fit what was asked."""


class OutputError(UserError):
    """A folder or file cannot be written, or exists and would be overwritten."""


class DownloadError(UserError):
    """Public weights did not arrive: no network, no such file there, a connection that ended early."""


class WorkError(GfldetError):
    """The work failed although the input was valid (for example, the loss stayed non-finite)."""


class LostError(WorkError):
    """Another process of the run has ended, or cannot be reached."""


class Notice(UserWarning):
    """Something about the settings that the user should know; the command line prints it, Python warns of it."""


def listed(head: str, problems: Sequence[str], tail: str, limit: int = 200) -> str:
    """`head`, the problems one per line (the first `limit`, then a count), and what to do in `tail`."""
    shown = [f"  {problem}" for problem in problems[:limit]]
    if len(problems) > limit:
        shown.append(f"  ... and {len(problems) - limit} more")
    return "\n".join([head, *shown, tail])


def counted(count: int, what: str) -> str:
    """`1 class`, `2 classes`, `1,000 boxes`: a number and what it counts."""
    plural = "" if count == 1 else "es" if what.endswith(("s", "x")) else "s"
    return f"{count:,} {what}{plural}"


def worded(count: int, text: str) -> str:
    """A number before a text that has both forms: of `image(s) [has|have] none`, `1 image has none` or `2 images have
    none`."""
    return f"{count:,} {_form(count, text)}"


def part_of(count: int, total: int, what: str, text: str) -> str:
    """A part of what is counted, before a text as `worded` takes it: `1 of 2 images is bad`, `all 2 images are bad`."""
    some = "all" if count == total > 1 else f"{count:,} of"
    return f"{some} {counted(total, what)} {_form(count, text)}"


def _form(count: int, text: str) -> str:
    """That of its two forms which goes with the number; see `worded`."""
    text = re.sub(r"\((e?s)\)", "" if count == 1 else r"\1", text)
    return re.sub(r"\[([^|\]]+)\|([^\]]+)\]", r"\1" if count == 1 else r"\2", text)


def plain(text: str) -> str:
    """A text for people, of one or several lines: what would steer a terminal, or what no terminal can write, stands as
    its escape, a line of more than LONGEST_LINE letters is cut in its middle, and a password in an address is `***`."""
    lines = (
        line if len(line) <= LONGEST_LINE else f"{line[: LONGEST_LINE // 2]} ... {line[-LONGEST_LINE // 2 :]}"
        for line in text.split("\n")
    )
    told = "\n".join(_without_password(line) if ":/" in line else line for line in lines)
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in told)


def _without_password(line: str) -> str:
    for form in _PASSWORDS:
        line = form.sub(r"\1***", line)
    return line


def shown(value: object, most: int = 80, quoted: bool = True) -> str:
    """A value of the user's in a message: its repr, cut to `most` letters; text that is not `quoted` stands as it is,
    but for what would steer a terminal.

    Every value goes through here on its way into a message.  The work is bounded: lists that hold each other many times
    over would be unfolded by repr without an end, and Python refuses to write a number of 5,000 digits.
    """
    if isinstance(value, str) and not quoted:
        text = plain(value[: most + 1].replace("\n", "\\n"))
    else:
        text = _repr(value, most, 3)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _repr(value: object, most: int, depth: int) -> str:
    """`repr`, of the first items and letters alone, `depth` levels deep."""
    if isinstance(value, (str, bytes)):
        return repr(value[: most + 1])
    if isinstance(value, int):
        return repr(value) if value.bit_length() < 1000 else f"a number of {value.bit_length()} bits"
    if isinstance(value, Mapping):
        pairs = (f"{_repr(k, most, depth - 1)}: {_repr(v, most, depth - 1)}" for k, v in value.items())
        return f"{{{_joined(pairs, most) if depth else '...'}}}"
    if isinstance(value, (list, tuple)):
        items = _joined((_repr(item, most, depth - 1) for item in value), most) if depth else "..."
        return f"[{items}]" if isinstance(value, list) else f"({items}{',' * (len(value) == 1)})"
    return repr(value) if value is None or isinstance(value, float) else f"a {type(value).__name__}"


def _joined(parts: Iterable[str], most: int) -> str:
    """The parts with commas between, up to the first that lies beyond `most` letters."""
    text = ""
    for part in parts:
        text += f", {part}" if text else part
        if len(text) > most:
            break
    return text


def nearest(word: str, choices: Iterable[str]) -> str:
    """The one of `choices` that is spelled most like `word`, whatever the case; empty if none is like it."""
    folded = {choice.casefold(): choice for choice in choices}
    close = get_close_matches(word.casefold(), list(folded), n=1)
    return folded[close[0]] if close else ""


def no_attribute(owner: object, name: str, elsewhere: Mapping[str, str]) -> AttributeError:
    """The error of a `__getattr__`, which names the nearest thing that `owner` has.

    elsewhere  a sentence for each name that other packages have for it, or that gfldet does without
    """
    told = f"{type(owner).__name__} has no {name!r}"
    if name.startswith("_"):  # Python itself asks for such names, and reads no message
        return AttributeError(told)
    if name in elsewhere:
        return AttributeError(f"{told}: {elsewhere[name]}")
    public = [known for known in dir(owner) if not known.startswith("_")]
    close = nearest(name, public)
    return AttributeError(f"{told}; did you mean {close!r}?" if close else f"{told}; it has {', '.join(public)}")
