"""Which pictures an archive holds: those of a folder, of a list file, or of a bucket; and the bytes of one of them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from edge_mdda.errors import ImageError, UnreadableImageError
from edge_mdda.files import IMAGE_SUFFIXES, OTHER_PICTURES, Limits, read_bytes, read_stream
from export.dataset import DatasetError

REMOTE = "://"  # marks what fsspec opens, such as s3://bucket/folder
ATTEMPTS, FIRST_PAUSE = 3, 0.5  # tries of a remote read, and seconds before the second; it doubles
NAMED = (*IMAGE_SUFFIXES, *OTHER_PICTURES)
"""Pictures that cannot be read are listed as well, so that each gets a row with the reason."""


def is_remote(name: str) -> bool:
    """Whether a name is for fsspec."""
    return REMOTE in name


def _is_picture(name: str) -> bool:
    """By its suffix; hidden files, which another system writes beside its copies, are none."""
    base = name.rsplit("/", 1)[-1]
    return os.path.splitext(base)[1].lower() in NAMED and not base.startswith(".")


def pictures_of(source: str) -> Iterator[str]:
    """Names of all pictures, always in the same order; absolute paths, or addresses for fsspec.

    Parameters
    ----------
    source : str
        A folder (with all below it), a text file with one path or address a line (relative ones count from the file's
        folder), or an address such as ``s3://bucket/folder``.

    Raises
    ------
    DatasetError
        Nothing of that name, or it cannot be read.
    """
    if is_remote(source):
        yield from _remote(source)
    elif os.path.isdir(source):
        yield from _folder(os.path.abspath(source))
    elif os.path.isfile(source):
        yield from _list_file(Path(source))
    else:
        raise DatasetError(f"{source}: no such folder or list of pictures")


def _folder(root: str) -> Iterator[str]:
    def complain(error: OSError) -> None:
        raise DatasetError(f"{error.filename}: cannot be listed ({error.strerror})") from error

    for folder, below, names in os.walk(root, onerror=complain):
        below.sort()
        yield from (os.path.join(folder, name) for name in sorted(names) if _is_picture(name))


def _list_file(path: Path) -> Iterator[str]:
    folder = path.absolute().parent
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        for line in file:
            name = line.rstrip("\r\n")
            if "\0" in name:
                raise DatasetError(f"{path}: not a text file with one path a line")
            if name.strip():
                yield name if is_remote(name) else str(folder / name)


def _remote(source: str) -> Iterator[str]:
    import fsspec

    try:
        system, root = fsspec.url_to_fs(source)
        if not system.exists(root):
            raise DatasetError(f"{source}: no such folder of pictures")
        names = sorted(system.find(root))
    except ImportError as error:  # fsspec names the package of the protocol
        raise DatasetError(f"{source}: {error}") from error
    except (OSError, ValueError) as error:
        raise DatasetError(f"{source}: cannot be listed ({error})") from error
    yield from (system.unstrip_protocol(name) for name in names if _is_picture(name))


def read_picture(name: str, limits: Limits) -> bytes:
    """The bytes of one picture.

    Raises
    ------
    ImageError
        It cannot be read, after ``ATTEMPTS`` tries where it is remote.
    """
    if not is_remote(name):
        return read_bytes(name, limits)
    import fsspec

    pause = FIRST_PAUSE
    for attempt in range(ATTEMPTS):
        try:
            with fsspec.open(name, "rb") as file:
                return read_stream(file, limits)
        except ImageError:
            raise
        except FileNotFoundError:
            break
        except Exception as error:  # each protocol has exceptions of its own
            if attempt == ATTEMPTS - 1:
                raise UnreadableImageError(f"cannot be fetched ({type(error).__name__}: {error})") from error
            time.sleep(pause)
            pause *= 2
    raise UnreadableImageError("there is no such file: check the name")
