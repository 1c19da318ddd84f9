"""The download of public weights: the one module of gfldet that uses the network, and only because the user asked.

The bytes go to NAME.part.pt.  A download that breaks off leaves it, and the next one asks the server for the rest.
Only a file that is whole and proven readable gets its own name.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import sys
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import IO, BinaryIO
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from tqdm import tqdm

import gfldet
from gfldet.errors import CheckpointError, DownloadError, OutputError
from gfldet.messages import Tell
from gfldet.weights.folder import HOME, folder
from gfldet.weights.table import MIB, PublicWeights
from gfldet.writing import lock

SCHEMES = frozenset({"https"})  # also of an address that a server sends on to
PATIENCE = 30.0  # s without a byte
_CHUNK = 1 << 18
_KEPT = "What has arrived is kept: the same command goes on from there."


def download(
    weights: PublicWeights, prove: Callable[[Path], None], *, again: bool = False, tell: Tell, verbose: bool = True
) -> Path:
    """The file of `weights`, downloaded unless it is here already (with `again`, in any case).

    `prove` is given the whole file, under another name, and raises CheckpointError if it is not what it should be; the
    file is deleted then.  `tell` takes lines for the user; a `verbose` download shows its progress on a terminal.

    Raises DownloadError when the file does not arrive or is another one than published, and OutputError when it cannot
    be written.
    """
    target = folder() / weights.file
    if target.is_file() and not again:
        tell(f"{weights.name} is here already: {target}")
        return target
    part = target.with_name(f"{weights.name}.part{target.suffix}")
    tell(f"{weights.address}\n  -> {target}")
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        with part.open("ab") as file:
            _lock(file, weights)
            _receive(weights, file, tell, verbose)
    except KeyboardInterrupt:
        tell(f"\n{weights.name}: interrupted. {_KEPT}")
        raise
    except OSError as error:
        raise OutputError(
            f"{part}: cannot be written ({error.strerror or error}); free space, or choose another folder by {HOME}. "
            f"{_KEPT}"
        ) from error
    finally:
        if part.is_file() and not part.stat().st_size:
            part.unlink()
    _prove(weights, part, prove)
    try:
        os.replace(part, target)
    except OSError as error:
        raise OutputError(f"{target}: cannot be written ({error.strerror}); {part} is the whole file") from error
    return target


def _lock(file: BinaryIO, weights: PublicWeights) -> None:
    """Keep a second download out of the file until it is closed, on systems that can."""
    if lock(file) is False:
        raise DownloadError(f"{weights.name}: another gfldet downloads it now; wait for that one")


class _OtherFile(Exception):
    """The server has no rest that would follow what is here."""


def _receive(weights: PublicWeights, file: BinaryIO, tell: Tell, verbose: bool) -> None:
    """Bring `file`, which holds the beginning or nothing, to its whole length.

    Raises DownloadError if the server does not let that happen, and OSError if the disk does not.
    """
    there = file.seek(0, os.SEEK_END)
    try:
        answer = _ask(weights, there)
    except _OtherFile:
        answer, there = _ask(weights, 0), _from_the_beginning(weights, file, tell)
    if answer is None:
        return
    with answer:
        if there and answer.status != HTTPStatus.PARTIAL_CONTENT:
            there = _from_the_beginning(weights, file, tell)
        length = answer.headers.get("Content-Length", "")
        total = there + int(length) if length.isdecimal() else None
        _check_space(file, weights, 0 if total is None else total - there)
        shown = verbose and sys.stderr.isatty()
        with tqdm(
            desc=weights.name,
            total=total,
            initial=there,
            unit="B",
            unit_scale=True,
            unit_divisor=1024,
            disable=not shown,
        ) as bar:
            while chunk := _read(answer, weights, there, total):
                file.write(chunk)
                there += len(chunk)
                bar.update(len(chunk))
        file.flush()
        os.fsync(file.fileno())
    if not there:
        raise DownloadError(f"{weights.name}: {weights.address} sends an empty file; see {weights.page}")
    if total is not None and there < total:
        raise _broken(weights, "the connection ended", there, total)


def _ask(weights: PublicWeights, there: int) -> http.client.HTTPResponse | None:
    """The server's answer to a request for all bytes from `there` on; None if there are no more.

    An answer of another status than 206 begins with the first byte.  Raises _OtherFile if the server's file does not go
    on from `there`, and DownloadError if it gives none.
    """
    _check_scheme(weights.address)
    wanted = {"Range": f"bytes={there}-"} if there else {}
    request = Request(weights.address, headers={"User-Agent": f"gfldet/{gfldet.__version__}", **wanted})
    try:
        answer: http.client.HTTPResponse = build_opener(_Redirects).open(request, timeout=PATIENCE)
    except HTTPError as error:
        with error:
            if there and error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                if error.headers.get("Content-Range", "") == f"bytes */{there}":
                    return None
                raise _OtherFile from error
            raise _refused(weights, error) from error
    except (URLError, http.client.HTTPException, OSError) as error:
        raise _unreached(weights, error) from error
    begins = answer.headers.get("Content-Range", "")
    if answer.status == HTTPStatus.PARTIAL_CONTENT and not begins.startswith(f"bytes {there}-"):
        answer.close()
        raise _OtherFile
    return answer


def _read(answer: http.client.HTTPResponse, weights: PublicWeights, there: int, total: int | None) -> bytes:
    """The next bytes, none at the end; DownloadError if the connection breaks."""
    try:
        return answer.read1(_CHUNK)
    except TimeoutError as error:
        raise _broken(weights, f"the server sent nothing for {PATIENCE:g} s", there, total) from error
    except (http.client.HTTPException, OSError) as error:
        raise _broken(weights, f"the connection broke ({error})", there, total) from error


def _from_the_beginning(weights: PublicWeights, file: BinaryIO, tell: Tell) -> int:
    """Empty the file, since its beginning is of no use; the 0 bytes that it holds now."""
    tell(f"{weights.name}: the server does not send the rest alone; it is downloaded from the beginning")
    file.truncate(0)
    return 0


def _check_space(file: BinaryIO, weights: PublicWeights, missing: int) -> None:
    """OutputError if the disk has no room for so many bytes more."""
    place = Path(file.name).parent
    free = shutil.disk_usage(place).free
    if free < missing:
        raise OutputError(
            f"{weights.name}: {missing / MIB:.0f} MiB are to come, and {place} has room for {free / MIB:.0f}; free "
            f"space, or choose another folder by {HOME}"
        )


class _Redirects(HTTPRedirectHandler):
    """Follows a server that sends on to another address, but to a secure one alone."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: http.client.HTTPMessage, newurl: str
    ) -> Request | None:
        _check_scheme(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _check_scheme(address: str) -> None:
    if urlsplit(address).scheme not in SCHEMES:
        raise DownloadError(f"{address}: not a secure address; gfldet downloads from {', '.join(SCHEMES)} alone")


def _prove(weights: PublicWeights, part: Path, prove: Callable[[Path], None]) -> None:
    """DownloadError, and the file is gone, if it is another one than published."""
    try:
        found = _sha256(part)[: len(weights.sha256)] if weights.sha256 else ""
        if found != weights.sha256:
            raise CheckpointError(f"its SHA-256 begins with {found}, the published one with {weights.sha256}")
        prove(part)
    except CheckpointError as error:
        part.unlink(missing_ok=True)
        reason = str(error).removeprefix(f"{part}: ")
        raise DownloadError(
            f"{weights.name}: {weights.address} sent another file than expected, which was deleted: {reason}\n"
            f"The same command downloads it anew.  If it ends like this again, the file has changed: see {weights.page}"
        ) from error


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(MIB):
            digest.update(chunk)
    return digest.hexdigest()


def _refused(weights: PublicWeights, error: HTTPError) -> DownloadError:
    """What to say of an answer that is no file."""
    gone = error.code in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE)
    advice = f"the file is not there any more: see {weights.page}" if gone else "try again later"
    return DownloadError(f"{weights.name}: {weights.address} answers {error.code} ({error.reason}); {advice}")


def _unreached(weights: PublicWeights, error: Exception) -> DownloadError:
    """What to say where no server answers."""
    reason = getattr(error, "reason", None) or error
    if isinstance(reason, TimeoutError):
        reason = f"no answer for {PATIENCE:g} s"
    host, target = urlsplit(weights.address).netloc, folder() / weights.file
    return DownloadError(
        f"{weights.name}: {host} cannot be reached ({reason}). Run the same command where there is a network (a proxy "
        f"is taken from https_proxy), or download {weights.address} by other means and put it at {target}"
    )


def _broken(weights: PublicWeights, what: str, there: int, total: int | None) -> DownloadError:
    """What to say of a download that ended early."""
    of = "" if total is None else f" of {total / MIB:.1f}"
    return DownloadError(f"{weights.name}: {what} after {there / MIB:.1f}{of} MiB. {_KEPT}")
