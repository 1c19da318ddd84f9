"""torch's zip archives as records of bytes.

Nothing in a file grows when it is read: records are stored as they are, in no more bytes than the file has.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

MAX_PICKLE = 64 << 20  # bytes; a detector's takes a tenth of a megabyte
MAX_DIRECTORY = 64 << 20  # bytes of the archive's list of records, some 100 each
VERSION = "3"  # what torch.save has written since its 1.6


class Refusal(Exception):
    """Why a file is not taken, without its name, which whoever was asked to read it adds."""


@dataclass(frozen=True, slots=True, eq=False)
class Records:
    """An open archive; `prefix` stands before the names of its records."""

    file: zipfile.ZipFile
    prefix: str

    def pickle(self) -> bytes:
        """The record that tells what the others are."""
        return self.read("data.pkl")

    def read(self, name: str) -> bytes:
        """The bytes of a record; Refusal for one that is missing or damaged."""
        name = self.prefix + name
        try:
            return self.file.read(name)
        except KeyError as error:
            raise Refusal(f"the record {name} is missing") from error
        except Exception as error:  # zipfile raises almost anything for damaged bytes
            raise Refusal(f"the record {name} is damaged ({error})") from error


@contextmanager
def opened(path: Path) -> Iterator[Records]:
    """The records of a file of `torch.save`.

    Raises Refusal for a file that is no such archive, was cut short, is of another version or would grow when it is
    read.
    """
    size = path.stat().st_size
    try:
        if _directory_size(path) > MAX_DIRECTORY:
            raise Refusal("more records in it than any detector has")
        file = zipfile.ZipFile(path)
    except (Refusal, OSError):
        raise
    except Exception as error:  # as above
        raise Refusal(
            "no archive as torch.save writes them, or one that was cut short; copy or download it again"
        ) from error
    with file:
        found = [name for name in file.namelist() if name.rpartition("/")[2] == "data.pkl"]
        if len(found) != 1:
            raise Refusal(f"{len(found)} records data.pkl in it instead of one, so torch.save did not write it")
        for record in file.infolist():
            if record.compress_type != zipfile.ZIP_STORED or record.file_size != record.compress_size:
                raise Refusal(f"the record {record.filename:.100} is compressed, which torch.save never does")
        if sum(record.file_size for record in file.infolist()) > size:
            raise Refusal("its records are larger than the file, so some of them share their bytes")
        if file.getinfo(found[0]).file_size > MAX_PICKLE:
            raise Refusal(f"data.pkl is larger than {MAX_PICKLE >> 20} MB, which no detector needs")
        records = Records(file, found[0].removesuffix("data.pkl"))
        for name, known in (("version", VERSION), ("byteorder", "little")):
            if records.prefix + name in file.NameToInfo:
                told = records.read(name).decode("ascii", "replace").strip()
                if told != known:
                    raise Refusal(f"an archive of {name} {told[:20]!r}; {known!r} is what can be read")
        yield records


def _directory_size(path: Path) -> int:
    """Bytes of the list of records at a zip archive's end, by the larger of the two places that may tell it (the second
    is for large archives); 0 where there is none."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - (1 << 16) - 22))
        end = file.read()
        at = end.rfind(b"PK\x05\x06")
        if at < 0 or len(end) < at + 22:
            return 0
        told = int.from_bytes(end[at + 12 : at + 16], "little")
        locator = end[max(0, at - 20) : at]
        if locator[:4] == b"PK\x06\x07":
            file.seek(int.from_bytes(locator[8:16], "little"))
            large = int.from_bytes(file.read(56)[40:48], "little")
            told = max(large, 0 if told == 0xFFFFFFFF else told)
        return told
