"""Pascal VOC: one XML file per image, boxes xmin ymin xmax ymax in pixels, read as edges (width = xmax - xmin).

A split is an ImageSets list of ids (images in JPEGImages/, XML in Annotations/), or a folder that holds images and
XML together.  An image belongs to the XML with the same stem; `<filename>` and `<path>` are not used, because they
often come from another machine.  `difficult` objects are truths like all others.  XML with a DOCTYPE is an error, so
that no entity can be expanded.
"""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from gfldet.data.formats import EMPTY, NO_LABELS, SWAPPED, Index, Item, Labels, counted, nearest, relative, repeats
from gfldet.data.images import IMAGE_SUFFIXES, find_files, find_images
from gfldet.data.text import read_lines
from gfldet.errors import DataError, shown
from gfldet.files import MAX_LIST, MAX_TEXT, Unreadable, contents, is_file, is_folder, told_as

_ENCODING = re.compile(rb"""\s*<\?xml[^>]*?\bencoding\s*=\s*["']([A-Za-z][\w.-]*)["']""", re.ASCII)
_PARSER_KNOWS = frozenset({"utf-8", "utf-16", "iso-8859-1", "us-ascii"})
_CHINESE = frozenset({"gb2312", "gb_2312-80", "gbk", "cp936"})  # files that declare these hold letters of GB 18030 too
_NO_CHARSETS = frozenset({"idna", "punycode", "raw-unicode-escape", "unicode-escape", "undefined"})
_LINE = "line of the file"  # no XML file can hold this attribute, because its name has blanks


def index(entries: Sequence[Path], root: Path, names: Sequence[str]) -> Index:
    """The images of `entries` (ImageSets lists, or folders with images and XML), with ids from 0.

    Raises DataError if an entry, or a folder that the entry needs, is missing or empty.
    """
    result = Index()
    for entry in entries:
        if is_folder(entry):
            _index_folder(entry, entry if len(entries) == 1 else root, names, result)
        else:
            _index_list(entry, root, names, result)
    result.warnings += repeats([item.path for item in result.items])
    return result


def _index_list(file: Path, root: Path, names: Sequence[str], result: Index) -> None:
    folder = _voc_root(file, root)
    images = _by_stem(folder / "JPEGImages")
    rows = [(number, line.split()) for number, line in enumerate(read_lines(file, MAX_LIST), 1) if line.strip()]
    if not rows:
        raise DataError(f"{file}: lists no image; expected one image id per line, such as '000012'")
    for number, words in rows:
        stem = _stem(words[0])
        found = images.get(stem, [])
        xml = folder / "Annotations" / f"{stem}.xml"
        if len(found) != 1:
            some = f"several images: {', '.join(p.name for p in found)}" if found else "no image"
            there = folder / "JPEGImages"
            result.problems.append(f"{file}:{number}: {shown(stem)} has {some} in {there}; expected one")
        elif not is_file(xml):
            result.problems.append(f"{file}:{number}: {shown(stem)} has no XML; expected {xml}")
        else:
            _add(result, found[0], relative(found[0], folder / "JPEGImages"), xml, names)


def _index_folder(folder: Path, base: Path, names: Sequence[str], result: Index) -> None:
    images = find_images(folder)
    xmls = {_key(path): path for path in find_files(folder, frozenset({".xml"}))}
    if not images or not xmls:
        raise DataError(
            f"{folder}: holds {len(images)} images and {len(xmls)} XML files; expected both, each XML beside its image"
        )
    stems = {_key(image) for image in images}
    for image in images:
        _add(result, image, relative(image, base), xmls.get(_key(image)), names)
    without = [str(image) for image in images if _key(image) not in xmls]
    alone = [str(xml) for key, xml in xmls.items() if key not in stems]
    if without:
        result.warnings.append(counted(NO_LABELS, without))
    if alone:
        result.warnings.append(counted("XML file(s) have no image and were skipped", alone))


def _add(result: Index, image: Path, file_name: str, xml: Path | None, names: Sequence[str]) -> None:
    labels = partial(read_labels, xml, names) if xml else Labels
    result.items.append(Item(image, file_name, len(result.items), labels))


def _voc_root(file: Path, root: Path) -> Path:
    """The folder with JPEGImages/ and Annotations/: three levels above ImageSets/Main/x.txt, or `path` of the YAML."""
    tried = list(dict.fromkeys([*list(file.parents)[:3][::-1], root]))
    for folder in tried:
        if is_folder(folder / "JPEGImages") and is_folder(folder / "Annotations"):
            return folder
    raise DataError(
        f"{file}: no folders JPEGImages and Annotations found in {', '.join(map(str, tried))}; "
        "expected the layout of Pascal VOC, or a folder that holds images and XML together"
    )


def _by_stem(folder: Path) -> dict[str, list[Path]]:
    images: dict[str, list[Path]] = {}
    for path in find_images(folder):
        images.setdefault(relative(path.with_suffix(""), folder), []).append(path)
    return images


def _stem(word: str) -> str:
    path = Path(word)
    return (path.with_suffix("") if path.suffix.lower() in IMAGE_SUFFIXES else path).as_posix()


def _key(path: Path) -> Path:
    return path.with_suffix("")


def read_labels(file: Path, names: Sequence[str]) -> Labels:
    """Boxes of one XML file; the result also holds problems and repairs.  Raises nothing."""
    labels = Labels()
    try:
        tree = read_xml(file)
    except DataError as error:
        labels.problems.append(str(error))
        return labels
    labels.declared = _declared(tree)
    for found in tree.findall("object"):
        place = f"{file}:{found.get(_LINE)}"
        try:
            cls = _class(found, names)
            x1, y1, x2, y2 = _bndbox(found)
        except ValueError as error:
            labels.problems.append(f"{place}: {error}")
            continue
        if x1 > x2 or y1 > y2:
            labels.notes.append((SWAPPED, place))
        if x1 == x2 or y1 == y2:
            labels.notes.append((EMPTY, place))
            continue
        labels.add((min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)), cls, place)
    return labels


def read_xml(file: Path) -> Element:
    """The root <annotation> of an XML file; each element has its line.  Raises DataError with file and line."""
    builder = TreeBuilder()
    parser = expat.ParserCreate()

    def start(tag: str, attributes: dict[str, str]) -> None:
        builder.start(tag, {_LINE: str(parser.CurrentLineNumber)})

    def refuse(*declaration: object) -> None:
        raise Unreadable("has a DOCTYPE, and label files must not have one; remove that line", parser.CurrentLineNumber)

    parser.StartElementHandler = start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = refuse
    with told_as(DataError, file):
        data = _decoded(contents(file, MAX_TEXT))
        try:
            parser.Parse(data, True)
        except expat.ExpatError as error:
            raise Unreadable(f"is not valid XML: {expat.errors.messages[error.code]}", error.lineno) from error
        root = builder.close()
        if root.tag != "annotation":
            tag = shown(root.tag, quoted=False)
            raise Unreadable(f"begins with <{tag}>; expected <annotation>, as in Pascal VOC", 1)
    return root


def _decoded(data: bytes) -> bytes | str:
    """The text of an XML file in the encoding that it declares; the bytes where the parser knows that one itself.

    What the parser is given as text it reads as such, whatever the declaration says.
    """
    found = _ENCODING.match(data)
    name = found[1].decode("ascii").lower() if found else "utf-8"
    if name in _PARSER_KNOWS or data.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        return data
    if data.isascii():  # the same in every encoding that begins with readable letters
        return data.decode("ascii")
    try:
        if codecs.lookup(name).name in _NO_CHARSETS:
            raise LookupError
        return data.decode("gb18030" if name in _CHINESE else name)
    except LookupError:
        reason = f"declares the encoding {shown(name)}, which is not known"
    except ValueError:
        reason = f"is not text of the encoding {shown(name)}, which it declares"
    raise Unreadable(f"{reason}; save it as UTF-8", 1)


def _class(found: Element, names: Sequence[str]) -> int:
    name = (found.findtext("name") or "").strip()
    if name not in names:
        raise ValueError(f"class {shown(name)} is not among the names in the data YAML.{nearest(name, names)}")
    return names.index(name)


def _bndbox(found: Element) -> tuple[float, float, float, float]:
    box = found.find("bndbox")
    given = {child.tag: (child.text or "").strip() for child in (() if box is None else box)}
    texts = [given.get(side, "") for side in ("xmin", "ymin", "xmax", "ymax")]
    try:
        x1, y1, x2, y2 = values = tuple(map(float, texts))
        if all(map(math.isfinite, values)):
            return x1, y1, x2, y2
    except ValueError:
        pass
    raise ValueError(f"bndbox holds {shown(texts)}; expected finite numbers in xmin, ymin, xmax, ymax")


def _declared(tree: Element) -> tuple[int, int] | None:
    texts = [(tree.findtext(f"size/{side}") or "").strip() for side in ("width", "height")]
    if not all(text.isdecimal() and len(text) < 10 and int(text) for text in texts):
        return None
    return int(texts[0]), int(texts[1])
