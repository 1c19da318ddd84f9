"""Pascal VOC: one XML file per image, boxes xmin ymin xmax ymax in pixels, read as edges (width = xmax - xmin).

A split is an ImageSets list of ids (images in JPEGImages/, XML in Annotations/), a list of images, or a folder with
images.  The XML files lie in that folder too, or anywhere below the root, found by their stems: an image belongs to the
XML with the same stem.  A list of a class, such as cat_train.txt, has -1, 0 or 1 after each id: all its images are
used.  `<filename>` and `<path>` are not used, because they often come from another machine.  `difficult` objects are
truths like all others.  XML with a DOCTYPE is an error, so that no entity can be expanded.
"""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from gfldet.data.finder import Finder, relative
from gfldet.data.formats import (
    EMPTY,
    NO_LABELS,
    SWAPPED,
    XML_WITHOUT_IMAGE,
    Index,
    Item,
    Labels,
    nearest,
    repeats,
)
from gfldet.data.images import IMAGE_SUFFIXES, find_files, find_images
from gfldet.data.located import Located
from gfldet.data.text import list_lines, read_lines
from gfldet.errors import DataError, counted, shown
from gfldet.files import MAX_LIST, MAX_TEXT, Unreadable, contents, is_file, is_folder, told_as

_ENCODING = re.compile(rb"""\s*<\?xml[^>]*?\bencoding\s*=\s*["']([A-Za-z][\w.-]*)["']""", re.ASCII)
_PARSER_KNOWS = frozenset({"utf-8", "utf-16", "iso-8859-1", "us-ascii"})
_CHINESE = frozenset({"gb2312", "gb_2312-80", "gbk", "cp936"})  # files that declare these hold letters of GB 18030 too
_NO_CHARSETS = frozenset({"idna", "punycode", "raw-unicode-escape", "unicode-escape", "undefined"})
_FLAGS = ("-1", "0", "1", "+1")  # not in the image, hard to see in it, in it
_LINE = "line of the file"  # no XML file can hold this attribute, because its name has blanks


def index(entries: Sequence[Path], finder: Finder, names: Sequence[str]) -> Index:
    """The images of `entries` (lists of ids or of images, or folders with images), with ids from 0.

    Raises DataError if an entry, or a folder that the entry needs, is missing or empty.
    """
    result = Index()
    for entry in entries:
        if is_folder(entry):
            _index_folder(entry, entry if len(entries) == 1 else finder.root, finder, names, result)
        elif _lists_images(entry):
            _index_images(entry, finder, names, result)
        else:
            _index_list(entry, finder, names, result)
    result.notes += repeats([item.path for item in result.items])
    return result


def _lists_images(file: Path) -> bool:
    """Whether a list holds paths of images, with folders, rather than ids."""
    first = next(iter(list_lines(file)), "")
    return Path(first).suffix.lower() in IMAGE_SUFFIXES and ("/" in first or "\\" in first)


def _index_list(file: Path, finder: Finder, names: Sequence[str], result: Index) -> None:
    rows = [(number, line) for number, line in enumerate(read_lines(file, MAX_LIST), 1) if line.strip()]
    if not rows:
        raise DataError(f"{file}: lists no image; expected one image id per line, such as '000012'")
    folder = voc_root(file, finder.root)
    place = folder / "JPEGImages" if folder else finder.root
    images = _by_stem(place, whole=folder is not None)
    flagged = 0
    for number, line in rows:
        stem, flag = _stem_and_flag(line.strip(), images)
        flagged += flag is not None
        found, line_of = images.get(stem, []), Located(f"{file}:{number}", file, number)
        if len(found) != 1:
            some = f"several images: {', '.join(p.name for p in found)}" if found else "no image"
            result.problems.append(line_of.told(f"{shown(stem)} has {some} in {place}; expected one"))
            continue
        xml = folder / "Annotations" / f"{stem}.xml" if folder else finder.labels_of(found, ".xml").get(found[0])
        if xml is None or not is_file(xml):
            expected = xml or f"{stem}.xml below {place}"
            result.problems.append(line_of.told(f"{shown(stem)} has no XML; expected {expected}"))
        else:
            _add(result, found[0], relative(found[0], place), xml, names)
    if folder is None and not result.items:
        tried = ", ".join(map(str, _voc_roots(file, finder.root)))
        raise DataError(
            f"{file}: no folders JPEGImages and Annotations found in {tried}; "
            "expected the layout of Pascal VOC, or a folder that holds images and XML together"
        )
    if flagged:
        result.warnings.append(
            f"{file}: a list of one class, with -1, 0 or 1 after {flagged} ids; all its images are used, "
            "with the boxes of all classes"
        )


def _stem_and_flag(line: str, images: Mapping[str, Sequence[Path]]) -> tuple[str, str | None]:
    """The id in a line of a list, which may have blanks in it, and the -1, 0 or 1 of a class list after it."""
    stem, (*rest, last) = _stem(line), line.rsplit(maxsplit=1)
    if rest and stem not in images and last in _FLAGS:
        return _stem(rest[0]), last
    return stem, None


def _index_images(file: Path, finder: Finder, names: Sequence[str], result: Index) -> None:
    """A list of the images' own paths; their XML files are found by their stems."""
    found = finder.find_all(list_lines(file), [file.parent, finder.root], relative(file, finder.root))
    result.problems += [one.problem for one in found if one.problem]
    images = [one.path for one in found if not one.problem]
    xmls = finder.labels_of(images, ".xml")
    for image in images:
        _add(result, image, relative(image, finder.root), xmls.get(image), names)
    _note(result, NO_LABELS, (image for image in images if image not in xmls))


def _index_folder(folder: Path, base: Path, finder: Finder, names: Sequence[str], result: Index) -> None:
    images = find_images(folder)
    inside = {_key(path): path for path in find_files(folder, frozenset({".xml"}))}
    xmls = inside or {_key(image): xml for image, xml in finder.labels_of(images, ".xml").items()}
    if not images or not xmls:
        raise DataError(
            f"{folder}: holds {counted(len(images), 'image')} and {counted(len(xmls), 'XML file')}; expected both, "
            f"each XML beside its image or below {finder.root}"
        )
    stems = {_key(image) for image in images}
    for image in images:
        _add(result, image, relative(image, base), xmls.get(_key(image)), names)
    _note(result, NO_LABELS, (image for image in images if _key(image) not in xmls))
    _note(result, XML_WITHOUT_IMAGE, (xml for key, xml in inside.items() if key not in stems))


def _note(result: Index, kind: str, files: Iterable[Path]) -> None:
    result.notes += [(kind, Located(str(file), file)) for file in files]


def _add(result: Index, image: Path, file_name: str, xml: Path | None, names: Sequence[str]) -> None:
    labels = partial(read_labels, xml, names) if xml else Labels
    result.items.append(Item(image, file_name, len(result.items), labels))


def voc_root(file: Path, root: Path) -> Path | None:
    """The folder with JPEGImages/ and Annotations/: three levels above ImageSets/Main/x.txt, or `path` of the YAML."""
    for folder in _voc_roots(file, root):
        if is_folder(folder / "JPEGImages") and is_folder(folder / "Annotations"):
            return folder
    return None


def _voc_roots(file: Path, root: Path) -> list[Path]:
    return list(dict.fromkeys([*list(file.parents)[:3][::-1], root]))


def _by_stem(folder: Path, whole: bool) -> dict[str, list[Path]]:
    """The images below a folder, by their path in it without suffix (`whole`), or by their stem alone."""
    images: dict[str, list[Path]] = {}
    for path in find_images(folder):
        images.setdefault(relative(path.with_suffix(""), folder) if whole else path.stem, []).append(path)
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
        labels.problems.append(Located(str(error), file))
        return labels
    labels.declared = _declared(tree)
    for found in tree.findall("object"):
        line = found.get(_LINE, "")
        place = Located(f"{file}:{line}", file, int(line))
        try:
            cls = _class(found, names)
            x1, y1, x2, y2 = _bndbox(found)
        except ValueError as error:
            labels.problems.append(place.told(error))
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
        except (LookupError, ValueError) as error:  # a declaration that only the parser understands
            raise Unreadable("declares an encoding that is not known; save it as UTF-8", 1) from error
        root = builder.close()
        if root.tag != "annotation":
            tag = shown(root.tag, quoted=False)
            raise Unreadable(f"begins with <{tag}>; expected <annotation>, as in Pascal VOC", 1)
    return root


def class_names_in(files: Iterable[Path]) -> set[str]:
    """The names of all objects in XML files; files that cannot be read are passed over, and told with their split."""
    names: set[str] = set()
    for file in files:
        try:
            names |= {(found.findtext("name") or "").strip() for found in read_xml(file).findall("object")}
        except DataError:
            continue
    return names - {""}


def _decoded(data: bytes) -> bytes | str:
    """The text of an XML file in the encoding that it declares; the bytes where the parser knows that one itself.

    What the parser is given as text it reads as such, whatever the declaration says.
    """
    found = _ENCODING.match(data)
    name = found[1].decode("ascii").lower() if found else "utf-8"
    if data.startswith(codecs.BOM_UTF8):  # says more than the declaration
        name = "utf-8-sig"
    elif name in _PARSER_KNOWS:
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
