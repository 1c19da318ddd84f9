r"""Where the file is that a text means: in a data YAML, in a list of images, in a COCO JSON.

Such texts often come from another machine, or from a program that put folders in front.  A path that exists as it is
written is always taken.  One that does not is looked for

1. with `\` as `/`, without a drive letter, a host, a query, or leading `../`, with `%20` as a blank; of
   `/data/local-files/?d=a/b.jpg` only `a/b.jpg` is a path;
2. without its leading folders, one by one: the name of the root is often the first of them;
3. by its base name, whatever its capitals: the one file below the root that has it.

A path that names a split is never found in the folders of another split.  Each choice is told, once, with how many
paths it covered.  If several files have the name, none is taken.
"""

from __future__ import annotations

import os
import posixpath
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from gfldet.data.split_words import SPLIT_WORDS, split_in, split_word
from gfldet.errors import DataError, shown, worded
from gfldet.files import exists, is_file, is_root

MOST_FILES = 1_000_000  # and folders below a root; a search stops there, so that no folder takes for ever
MOST_FOLDERS = 64  # of a written path; the search looks at the last of them only
SHOWN = 200  # characters of a path in a message
CHOICES_TOLD = 5  # of each source; the others are only counted


_Kind = tuple[str, str, bool]  # the folders that differ, as written and as found; whether it is a label


class SeveralError(DataError):
    """More than one file could be meant."""


@dataclass(frozen=True, slots=True)
class Found:
    """What became of a written path.

    path       where the file is; if it is nowhere, where it was expected
    there      whether it is there
    elsewhere  whether it is there, but not where it was written
    problem    why nothing was taken although something is there: several files may be meant, or it belongs to another
               path
    """

    path: Path
    there: bool = True
    elsewhere: bool = False
    problem: str = ""


@dataclass(slots=True)
class _Choice:
    written: str
    found: str
    label: bool
    count: int = 0

    def __str__(self) -> str:
        example = f"{shown(self.written, SHOWN)} as {shown(self.found, SHOWN)}"
        if self.label:
            told = "label(s) [is|are] not where YOLO or VOC have [it|them] and [was|were] found elsewhere"
        else:
            told = "path(s) [does|do] not exist as written and [was|were] found elsewhere"
        return f"{worded(self.count, told)}, {example}"


@dataclass(slots=True)
class _Below:
    """All files and folders below a folder: folded name -> paths."""

    files: dict[str, list[str]] = field(default_factory=dict)
    folders: dict[str, list[str]] = field(default_factory=dict)


class Finder:
    """Looks for files below `root`; it reads the folders there at most once, and only if a path does not exist."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._below: dict[Path, _Below] = {}
        self._choices: dict[str, dict[_Kind, _Choice]] = {}
        self._entries: dict[str, Path | None] = {}
        self._were_told: set[tuple[str, _Kind]] = set()

    def entry(self, written: str, source: str) -> Path | None:
        """The file or folder of a split that `written` in `source` means; None if there is none.

        A folder keeps the word of its split: `../train/images` is never `images`.  Raises SeveralError.
        """
        if written not in self._entries:
            self._entries[written] = _existing(written, [self.root]) or self._entry(written, source)
        return self._entries[written]

    def _entry(self, written: str, source: str) -> Path | None:
        """An entry that does not exist as written, by the rules 1 to 3."""
        below = self._read(self.root)
        for parts in _readings(written):
            word = split_word(parts)
            names = [_fold(parts[-1]), *(other for other in SPLIT_WORDS if SPLIT_WORDS[other] == _word(parts[-1]))]
            where = [group.get(name, ()) for group in (below.folders, below.files) for name in dict.fromkeys(names)]
            named = [Path(path) for paths in where for path in paths]
            named = [path for path in named if split_word(self._inside(path)) == word]
            for tail in _tails(parts):
                path = self.root.joinpath(*tail)
                there = [path] if split_word(tail) == word and exists(path) else self._alike(named, tail)
                if len(there) == 1:
                    return self._told(written, there[0], source)
            if named:
                return self._told(written, _only(written, named, self.root), source)
        return None

    def find_all(self, texts: Sequence[str], bases: Sequence[Path], source: str, tell: bool = True) -> list[Found]:
        """The files that `texts` in `source` mean, relative to `bases` (the first that has the file), or to the root.

        Two different texts never mean the same file, unless both exist as they are written.  Who only looks, before
        the files are taken, does not `tell`.
        """
        exact = [_existing(text, bases) for text in texts]
        found = [Found(path) if path else self._search(text, bases) for path, text in zip(exact, texts, strict=True)]
        if all(exact):
            return found
        owners: dict[Path, str] = {}
        for literal in (True, False):
            for text, path, one in zip(texts, exact, found, strict=True):
                if one.there and bool(path) == literal:
                    owners.setdefault(one.path, text)
        for number, (text, path, one) in enumerate(zip(texts, exact, found, strict=True)):
            if path or not one.there:
                continue
            owner = owners[one.path]
            if _plain(owner) == _plain(text):
                if tell:
                    same = text == relative(one.path, self.root)
                    self._told(relative(bases[0] / text, self.root) if same else text, one.path, source)
            else:
                told = f"{one.path} is named so but belongs to {shown(owner, SHOWN)}"
                problem = f"{source}: {shown(text, SHOWN)} does not exist; {told}"
                found[number] = Found(one.path, there=False, problem=problem)
        return found

    def labels_of(self, images: Sequence[Path], suffix: str) -> dict[Path, Path]:
        """image -> the one file below the root that has its stem and `suffix`, for the images that have one.

        Of several, those in a folder of the image's split are closer, then those in a folder of the same name.  Raises
        SeveralError if two are as close.
        """
        found: dict[Path, Path] = {}
        for image in images:
            known = [Path(path) for path in self._read(self.root).files.get(_fold(image.stem + suffix), ())]
            split = split_in("/".join(self._inside(image.parent)))
            of_split = {path: split_in("/".join(self._inside(path.parent))) for path in known}
            near = [path for path in known if split is None or of_split[path] in (split, None)]
            own = [path for path in near if split and of_split[path] == split]
            near = own or near
            same = [path for path in near if _fold(path.parent.name) == _fold(image.parent.name)]
            near = same or near
            if near:
                found[image] = _only(f"{image.with_suffix(suffix)}", near, self.root)
                written = image.with_suffix(suffix)
                self._told("/".join(self._inside(written)), found[image], str(image.parent), label=True)
        return found

    def has_labels(self, images: Sequence[Path], suffix: str) -> bool:
        """Whether there is a file with the stem of one of the images and `suffix` anywhere below the root."""
        return any(_fold(image.stem + suffix) in self._read(self.root).files for image in images)

    def files(self, suffix: str) -> list[Path]:
        """All files below the root with a suffix, whatever its capitals, sorted."""
        named = (path for name, paths in self._read(self.root).files.items() if name.endswith(suffix) for path in paths)
        return sorted(map(Path, named))

    def take_notices(self) -> list[str]:
        """One sentence for each choice since the last call, with how many paths it covered."""
        notices = []
        for source, choices in self._choices.items():
            new = [choice for kind, choice in choices.items() if (source, kind) not in self._were_told]
            self._were_told |= {(source, kind) for kind in choices}
            notices += [f"{source}: {choice}" for choice in new[:CHOICES_TOLD]]
            more = new[CHOICES_TOLD:]
            if more:
                count = sum(choice.count for choice in more)
                notices.append(f"{source}: {count} more paths were found in {len(more)} other ways")
        self._choices.clear()
        return notices

    def _search(self, text: str, bases: Sequence[Path]) -> Found:
        """What a path that does not exist as written may mean, by the rules 1 to 3."""
        places = list(dict.fromkeys([*bases, self.root]))
        tops = [place for place in places if place == self.root or not place.is_relative_to(self.root)]
        for parts in _readings(text):
            word = split_word(parts)
            known = [Path(path) for top in tops for path in self._read(top).files.get(_fold(parts[-1]), ())]
            known = [path for path in dict.fromkeys(known) if _fits(word, self._inside(path))]
            for tail in _tails(parts):
                paths = [place.joinpath(*tail) for place in places]
                there = [path for path in paths if _fits(word, self._inside(path)) and is_file(path)]
                there = there[:1] or self._alike(known, tail)
                if len(there) == 1:
                    return Found(there[0], elsewhere=True)
            known = [path for path in known if path.name == parts[-1]] or known
            known = [path for path in known if path.is_relative_to(bases[0])] or known
            try:
                if known:
                    return Found(_only(text, known, self.root), elsewhere=True)
            except SeveralError as error:
                return Found(known[0], there=False, problem=str(error))
        return Found(bases[0] / text.replace("\\", "/"), there=False)

    def _read(self, folder: Path) -> _Below:
        if folder not in self._below:
            self._below[folder] = _read_folder(folder)
        return self._below[folder]

    def _alike(self, known: Sequence[Path], parts: Sequence[str]) -> list[Path]:
        """Of `known`, what differs from `parts` below the root only in capitals, or in words for the same split."""
        words = [_word(part) for part in parts]
        return [path for path in known if [_word(part) for part in self._inside(path)] == words]

    def _inside(self, path: Path) -> tuple[str, ...]:
        """The parts of a path, below the root if it lies there."""
        return (path.relative_to(self.root) if path.is_relative_to(self.root) else path).parts

    def _told(self, written: str, path: Path, source: str, label: bool = False) -> Path:
        """`path`; the choice is kept for `take_notices`, together with those that differ in the same folders."""
        before, after = list(_plain(written)), list(self._inside(path))
        while before and after and _fold(before[-1]) == _fold(after[-1]):
            before.pop()
            after.pop()
        choices = self._choices.setdefault(source, {})
        kind = ("/".join(before), "/".join(after), label)
        choices.setdefault(kind, _Choice(written, relative(path, self.root), label)).count += 1
        return path


def relative(path: Path, folder: Path) -> str:
    """`path` relative to `folder`, with forward slashes; a path outside of `folder` stays whole."""
    text, top = path.as_posix(), f"{folder.as_posix()}/"
    if text.startswith(top):  # the usual case, and a tenth of the time
        return text[len(top) :]
    return (path.relative_to(folder) if path.is_relative_to(folder) else path).as_posix()


def _read_folder(folder: Path) -> _Below:
    """What lies below a folder, without what begins with a dot; nothing for the top of a disk."""
    below = _Below()
    left, seen = MOST_FILES, set()
    for here, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(here)
        known = real in seen or is_root(real)
        folders[:] = [] if known else sorted(f for f in folders if f[0] != "." and f != "__MACOSX")
        if known:
            continue
        seen.add(real)
        for name in folders:
            below.folders.setdefault(_fold(name), []).append(os.path.join(here, name))
        for name in sorted(files):
            if name[0] != ".":
                below.files.setdefault(_fold(name), []).append(os.path.join(here, name))
        left -= len(files) + len(folders)
        if left < 0:
            break
    return below


def _existing(text: str, bases: Sequence[Path]) -> Path | None:
    """The path as it is written, in the first of `bases` that has it."""
    return next((path for base in bases if exists(path := base / text)), None)


def _readings(text: str) -> Iterator[tuple[str, ...]]:
    """The paths that a text may mean, without what comes before the first folder: as it stands, and unquoted."""
    yield from dict.fromkeys(parts for form in (text, unquote(text)) if (parts := _plain(form)))


def _plain(text: str) -> tuple[str, ...]:
    r"""The parts of a path: `C:\a\b.jpg`, `../a/b.jpg`, `https://host/a/b.jpg?x=1` and `/x/?d=a/b.jpg` are a, b.jpg."""
    path = text.strip().replace("\\", "/")
    inner = re.search(r"\?(?:.*&)?d=([^&]*)", path)
    if inner:
        path = unquote(inner[1])
    elif re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", path):
        path = re.sub(r"^[^:]+://[^/]*|[?#].*$", "", path)
    path = posixpath.normpath("/" + re.sub(r"^[A-Za-z]:", "", path))  # from a slash, so that no '../' is left
    return tuple(part for part in path.split("/") if part)[-MOST_FOLDERS:]


def _tails(parts: Sequence[str]) -> Iterator[Sequence[str]]:
    return (parts[first:] for first in range(len(parts)))


def _fits(word: str | None, folders: Sequence[str]) -> bool:
    """Whether a path in `folders` may be meant by one that names the split `word`."""
    return word is None or split_word(folders) in (word, None)


def _only(written: str, paths: Sequence[Path], root: Path) -> Path:
    if len(paths) == 1:
        return paths[0]
    several = " and ".join(map(str, paths[:2])) + (f" ({len(paths)} in all)" if len(paths) > 2 else "")
    raise SeveralError(
        f"{shown(written, SHOWN)} does not exist, and several files below {root} may be meant: {several}"
    )


def _word(name: str) -> str:
    """A folded name; of the words for one split the same."""
    return SPLIT_WORDS.get(_fold(name), _fold(name))


def _fold(name: str) -> str:
    """A name without differences of capitals and of accents that are written in two ways."""
    return unicodedata.normalize("NFC", name).casefold()
