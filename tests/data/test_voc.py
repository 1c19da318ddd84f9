"""Pascal VOC: lists and folders, boxes as edges in pixels, problems with file and line, XML that cannot hurt."""

from __future__ import annotations

from pathlib import Path

import pytest

from gfldet.data.finder import Finder
from gfldet.data.formats import EMPTY, SWAPPED, Index, by_kind, with_places
from gfldet.data.formats.voc import index, read_labels
from gfldet.errors import DataError

NAMES = ("RBC", "WBC", "Platelets")


def texts(found: Index) -> list[str]:
    """What is told of an index."""
    return [*found.warnings, *(with_places(kind, places) for kind, places in by_kind(found.notes).items())]


def thing(name: str, *corners: object, more: str = "") -> str:
    sides = "".join(f"<{s}>{v}</{s}>" for s, v in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True))
    return f"<object><name>{name}</name>{more}<bndbox>{sides}</bndbox></object>\n"


def annotation(*things: str, size: str = "<size><width>40</width><height>20</height></size>") -> str:
    return f"<annotation>\n<filename>C:\\other\\wrong.png</filename>\n{size}\n{''.join(things)}</annotation>\n"


def labels_of(text, *things: str):
    return read_labels(text("a.xml", annotation(*things)), NAMES)


def test_boxes_are_edges_in_pixels(text) -> None:
    labels = labels_of(text, thing("WBC", 1, 2, 11, 12.5), thing("RBC", 0, 0, 40, 20))
    assert labels.boxes == [(1, 2, 11, 12.5), (0, 0, 40, 20)]
    assert labels.classes == [1, 0]
    assert labels.declared == (40, 20)
    assert not labels.normalised
    assert [place.rsplit(":", 1)[1] for place in labels.places] == ["4", "5"]


def test_difficult_objects_are_truths_and_parts_are_not(text) -> None:
    part = "<difficult>1</difficult><part><name>head</name><bndbox><xmin>9</xmin></bndbox></part>"
    labels = labels_of(text, thing("WBC", 1, 2, 11, 12, more=part))
    assert labels.boxes == [(1, 2, 11, 12)]
    assert labels.crowd == [False]
    assert labels.problems == []


def test_boxes_without_area_and_turned_corners_are_noted(text) -> None:
    labels = labels_of(text, thing("WBC", 5, 2, 5, 12), thing("WBC", 11, 12, 1, 2))
    assert labels.boxes == [(1, 2, 11, 12)]
    assert [(kind, place.rsplit(":", 1)[1]) for kind, place in labels.notes] == [(EMPTY, "4"), (SWAPPED, "5")]


def test_an_unknown_class_is_told_with_line_and_nearest_spelling(text) -> None:
    labels = labels_of(text, thing("RBC", 1, 2, 11, 12), thing("Platlets", 1, 2, 11, 12))
    assert labels.classes == [0]
    assert labels.problems == [
        f"{labels.places[0].rsplit(':', 1)[0]}:5: class 'Platlets' is not among the names in the data YAML."
        " Did you mean 'Platelets'?"
    ]


@pytest.mark.parametrize(
    "broken", [thing("RBC", 1, "", 3, 4), thing("RBC", 1, 2, "nan", 4), "<object><name>RBC</name></object>"]
)
def test_an_object_without_a_box(text, broken: str) -> None:
    problems = labels_of(text, broken).problems
    assert len(problems) == 1
    assert "a.xml:4: bndbox holds" in problems[0]
    assert "expected finite numbers in xmin, ymin, xmax, ymax" in problems[0]


@pytest.mark.parametrize(
    "size", ["", "<size><width>0</width><height>0</height></size>", "<size><width>x</width></size>"]
)
def test_a_missing_or_zero_size_declares_nothing(text, size: str) -> None:
    assert read_labels(text("a.xml", annotation(size=size)), NAMES).declared is None


def test_xml_that_does_not_parse(text) -> None:
    problems = read_labels(text("a.xml", "<annotation>\n<object>\n</annotation>"), NAMES).problems
    assert problems == [problems[0]]
    assert "a.xml:3: is not valid XML: mismatched tag" in problems[0]
    assert "a.xml:1: begins with <html>" in read_labels(text("a.xml", "<html/>"), NAMES).problems[0]
    assert "no element found" in read_labels(text("a.xml", ""), NAMES).problems[0]


@pytest.mark.parametrize(
    "doctype",
    [
        '<!DOCTYPE lolz [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>',
        '<!DOCTYPE x [<!ENTITY leak SYSTEM "file:///etc/passwd">]>',
        "<!DOCTYPE annotation>",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_entities_are_refused(tmp_path: Path, doctype: str, encoding: str) -> None:
    content = f'<?xml version="1.0" encoding="{encoding}"?>\n{doctype}\n<annotation>&b;</annotation>'
    (tmp_path / "a.xml").write_bytes(content.encode(encoding))
    problems = read_labels(tmp_path / "a.xml", NAMES).problems
    assert len(problems) == 1
    assert "a.xml:2: has a DOCTYPE" in problems[0]


def test_an_imagesets_list(image, text, tmp_path: Path) -> None:
    """Suffixes in any case; <filename> is not trusted."""
    for name in ("a.jpg", "b.JPG", "c.png"):
        image(f"JPEGImages/{name}", format="PNG" if name == "c.png" else "JPEG")
        text(f"Annotations/{name[0]}.xml", annotation(thing("WBC", 1, 2, 11, 12)))
    found = index([text("ImageSets/Main/train.txt", "b\na\nc.png\n")], Finder(tmp_path), NAMES)
    assert [item.file_name for item in found.items] == ["b.JPG", "a.jpg", "c.png"]
    assert [item.image_id for item in found.items] == [0, 1, 2]
    assert found.items[0].labels().classes == [1]
    assert (found.problems, found.warnings) == ([], [])


def test_a_list_of_one_class_and_names_with_blanks(image, text, tmp_path: Path) -> None:
    """The id is the whole line where an image has that name, else the line without the flag of a class list."""
    for name in ("a", "my cat 2", "b 1", "dir/d e"):
        image(f"JPEGImages/{name}.jpg")
        text(f"Annotations/{name}.xml", annotation(thing("WBC", 1, 2, 11, 12)))
    plain = text("ImageSets/Main/train.txt", "my cat 2\n b 1\ndir/d e.jpg \na\n")
    found = index([plain], tmp_path, NAMES)
    assert [item.file_name for item in found.items] == ["my cat 2.jpg", "b 1.jpg", "dir/d e.jpg", "a.jpg"]
    assert (found.problems, found.warnings) == ([], [])
    flags = text("ImageSets/Main/WBC_train.txt", "my cat 2  1\nb 1 -1\na +1\ndir/d e\t0\n")
    found = index([flags], tmp_path, NAMES)
    assert [item.file_name for item in found.items] == ["my cat 2.jpg", "b 1.jpg", "a.jpg", "dir/d e.jpg"]
    assert found.problems == []
    assert found.warnings == [
        f"{flags}: a list of one class, with -1, 0 or 1 after 4 ids; all its images are used, "
        "with the boxes of all classes"
    ]
    missing = index([text("ImageSets/Main/x.txt", "no cat 1\nno cat")], tmp_path, NAMES).problems
    assert "x.txt:1: 'no cat' has no image" in missing[0]
    assert "x.txt:2: 'no cat' has no image" in missing[1]


def test_ids_without_image_or_xml_are_problems_with_their_line(image, text, tmp_path: Path) -> None:
    image("JPEGImages/a.jpg")
    image("JPEGImages/b.jpg")
    image("JPEGImages/b.png")
    text("Annotations/b.xml", annotation())
    found = index([text("ImageSets/Main/train.txt", "z\n\na\nb\n")], Finder(tmp_path), NAMES)
    assert found.items == []
    assert "train.txt:1: 'z' has no image in" in found.problems[0]
    assert "train.txt:3: 'a' has no XML; expected" in found.problems[1]
    assert "train.txt:4: 'b' has several images: b.jpg, b.png" in found.problems[2]


def test_a_list_without_the_folders_or_without_lines(image, text, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folders JPEGImages and Annotations found in"):
        index([text("train.txt", "a")], Finder(tmp_path), NAMES)
    image("JPEGImages/a.jpg")
    text("Annotations/a.xml", annotation())
    with pytest.raises(DataError, match="lists no image"):
        index([text("train.txt", "")], Finder(tmp_path), NAMES)


def test_a_folder_with_images_and_xml_together(image, text, tmp_path: Path) -> None:
    image("train/sub/a.JPG", format="JPEG")
    image("train/b.png")
    text("train/sub/a.xml", annotation(thing("Platelets", 1, 2, 11, 12)))
    lost = text("train/c.xml", annotation())
    found = index([tmp_path / "train"], Finder(tmp_path), NAMES)
    assert [item.file_name for item in found.items] == ["b.png", "sub/a.JPG"]
    assert [item.labels().classes for item in found.items] == [[], [2]]
    assert texts(found) == [
        f"1 image has no label file and counts as background: {tmp_path / 'train' / 'b.png'}",
        f"1 XML file has no image and was skipped: {lost}",
    ]


def test_a_folder_without_xml(image, tmp_path: Path) -> None:
    image("train/a.jpg")
    with pytest.raises(DataError, match="holds 1 image and 0 XML files; expected both"):
        index([tmp_path / "train"], Finder(tmp_path), NAMES)


# ---------------------------------------------------------------- encodings


def encoded(folder: Path, declared: str, encoding: str, name: str = "细胞", prefix: bytes = b"") -> Path:
    """A file that declares one encoding and is written in another, or in the same."""
    head = f'<?xml version="1.0" encoding="{declared}"?>\n' if declared else ""
    path = folder / "a.xml"
    path.write_bytes(prefix + (head + annotation(thing(name, 1, 2, 11, 12))).encode(encoding))
    return path


@pytest.mark.parametrize(
    ("declared", "encoding", "name"),
    [
        ("gb2312", "gb2312", "细胞"),
        ("GB2312", "gb18030", "镕"),  # a letter that such files hold and GB 2312 lacks
        ("gbk", "gbk", "镕"),
        ("gb18030", "gb18030", "\U00020000"),
        ("Big5", "big5", "細胞"),
        ("Shift_JIS", "shift_jis", "細胞"),
        ("euc-kr", "euc-kr", "세포"),
        ("windows-1252", "cp1252", "Zelle – “rot”"),
        ("windows-1251", "cp1251", "клетка"),
        ("ISO-8859-1", "latin-1", "tröpfchen"),
        ("utf8", "utf-8", "细胞"),
        ("UTF-8", "utf-8", "细胞"),
        ("utf-16", "utf-16", "细胞"),
        ("", "utf-8", "细胞"),
        ("no-such", "ascii", "cell"),  # letters that every encoding has alike
        ("gb2312", "ascii", "cell"),
    ],
)
def test_a_file_in_the_encoding_that_it_declares(tmp_path: Path, declared: str, encoding: str, name: str) -> None:
    labels = read_labels(encoded(tmp_path, declared, encoding, name), (name,))
    assert labels.problems == []
    assert labels.boxes == [(1, 2, 11, 12)]
    assert labels.places[0].endswith(":5" if declared else ":4")


def test_a_byte_order_mark_comes_before_the_declaration(tmp_path: Path) -> None:
    labels = read_labels(encoded(tmp_path, "gb2312", "utf-8", prefix=b"\xef\xbb\xbf"), ("细胞",))
    assert labels.boxes == [(1, 2, 11, 12)]


@pytest.mark.parametrize(
    ("declared", "encoding", "told"),
    [
        ("no-such", "utf-8", "declares the encoding 'no-such', which is not known; save it as UTF-8"),
        ("hex", "utf-8", "declares the encoding 'hex', which is not known"),
        ("idna", "utf-8", "declares the encoding 'idna', which is not known"),
        ("unicode_escape", "utf-8", "declares the encoding 'unicode_escape', which is not known"),
        ("shift_jis", "gb18030", "is not text of the encoding 'shift_jis', which it declares; save it as UTF-8"),
        ("utf-8", "gb18030", "is not valid XML"),
        ("", "gb18030", "is not valid XML"),
    ],
)
def test_an_encoding_that_cannot_be_read_is_told(tmp_path: Path, declared: str, encoding: str, told: str) -> None:
    path = encoded(tmp_path, declared, encoding)
    (problem,) = read_labels(path, ("细胞",)).problems
    assert problem.startswith(f"{path}:")
    assert told in problem


@pytest.mark.parametrize("width", ["9" * 5000, "9" * 10, "²", "-4", "1e3", ""])
def test_a_size_that_is_none_is_left_out(tmp_path: Path, width: str) -> None:
    size = f"<size><width>{width}</width><height>20</height></size>"
    (tmp_path / "a.xml").write_text(annotation(thing("WBC", 1, 2, 11, 12), size=size), encoding="utf-8")
    labels = read_labels(tmp_path / "a.xml", NAMES)
    assert labels.declared is None
    assert labels.boxes == [(1, 2, 11, 12)]


@pytest.mark.parametrize("declared", ["big5", "no-such"])
def test_a_declaration_that_the_bytes_contradict(tmp_path: Path, declared: str) -> None:
    """UTF-16 with its mark: the parser knows it, but asks for what is declared."""
    (problem,) = read_labels(encoded(tmp_path, declared, "utf-16"), ("细胞",)).problems
    assert problem.startswith(f"{tmp_path / 'a.xml'}:1: ")
    assert "encoding" in problem
