"""Pictures in and out: bytes from a file or a stream, RGB arrays from bytes, the network's size from an array.

Whatever is handed over, the outcome is an array or an :class:`ImageError` with one line that says what is wrong and
what to do.  The size is known before anything is decoded (see :mod:`edge_mdda.headers`), and numpy and OpenCV are
imported only once a picture has passed that check.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import secrets
import stat
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, BinaryIO

from edge_mdda.headers import DamagedImageError, Header, ImageError, UnsupportedImageError, read_header

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "DamagedImageError",
    "Header",
    "ImageError",
    "ImageTooLargeError",
    "Limits",
    "UnreadableImageError",
    "UnsupportedImageError",
    "decode",
    "fit",
    "read_bytes",
    "read_header",
    "read_stream",
    "write_png",
]

MIB = 2**20  # bytes
READ_STEP = 1 * MIB  # bytes asked for at a time
BAND_ROWS = 64  # rows composited at a time, so that the wide intermediate stays small
CHATTER_BYTES = 4096  # room for what the C libraries say about one picture; they stop after a few lines
WHITE = 255  # grey level of the background behind transparent pixels

# What libjpeg says when it has filled missing data with invention (decoded zeros, or whatever the memory held before,
# which may be the previous patient's picture).  Other remarks, such as padding between segments, are harmless.
LOST_DATA = (b"premature end", b"Premature end", b"bad Huffman code", b"instead of RST", b"Inconsistent progression")


class UnreadableImageError(ImageError):
    """The bytes cannot be had (missing, no permission, not a file), or a file cannot be written."""


class ImageTooLargeError(ImageError):
    """More bytes or more pixels than the limits allow."""


@dataclass(frozen=True)
class Limits:
    """How much is accepted.

    Attributes
    ----------
    max_pixels : int
        Width times height, at least 1.  Decoding needs 3 to 9 bytes of memory a pixel.
    max_bytes : int
        Size of the file in bytes, at least 1.

    Raises
    ------
    ValueError
        A limit is not a positive whole number.
    """

    max_pixels: int = 40_000_000
    max_bytes: int = 32 * MIB

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{field.name} must be a whole number of at least 1, not {value!r}")


DEFAULT_LIMITS = Limits()

_ADVICE = {  # what to do about a failed system call
    errno.ENOENT: "there is no such file: check the name",
    errno.ENOTDIR: "a part of the path is not a folder: check the name",
    errno.EACCES: "permission denied: change the file's or folder's permissions, or run as its owner",
    errno.EPERM: "permission denied: change the file's or folder's permissions, or run as its owner",
    errno.EISDIR: "this is a folder: name a file",
    errno.ELOOP: "the symbolic links go round in a circle: name the file itself",
    errno.ENAMETOOLONG: "the name is too long: shorten it",
    errno.EIO: "the device reported an error (EIO): check the card or disk, or copy the file again",
    errno.ENOSPC: "the disk is full: free some space",
    errno.EDQUOT: "the disk quota is used up: free some space",
    errno.EROFS: "the file system is read-only: choose another folder",
    errno.EMFILE: "too many files are open: close some, or raise the limit (ulimit -n)",
    errno.ENOMEM: "not enough memory: close other programs",
}
_NOT_A_FILE = (
    (stat.S_ISDIR, "this is a folder"),
    (stat.S_ISCHR, "this is a device"),
    (stat.S_ISBLK, "this is a device"),
    (stat.S_ISFIFO, "this is a named pipe"),
    (stat.S_ISSOCK, "this is a socket"),
)


def _from_os(error: OSError | ValueError) -> UnreadableImageError:
    """One line for a failed system call; ``ValueError`` is a path with a zero byte in it."""
    if not isinstance(error, OSError):
        return UnreadableImageError("the name contains an impossible character: check the name")
    text = _ADVICE.get(error.errno or 0)
    return UnreadableImageError(text or f"the system reported «{error.strerror or error}»: check the file and its disk")


def _require_file(mode: int) -> None:
    for test, what in _NOT_A_FILE:
        if test(mode):
            raise UnreadableImageError(f"{what}, not a file: name an image file")


def _too_many_bytes(limits: Limits, size: int | None = None) -> ImageTooLargeError:
    what = f"has {size / MIB:.1f} MiB, more than" if size is not None else "is larger than"
    return ImageTooLargeError(
        f"the file {what} the limit of {limits.max_bytes / MIB:.4g} MiB: shrink the image, or raise the byte limit"
    )


def read_bytes(path: str | os.PathLike[str], limits: Limits = DEFAULT_LIMITS) -> bytes:
    """Read a whole file, but only a regular one and only up to a size.

    Parameters
    ----------
    path : str or os.PathLike
        The file.  Symbolic links are followed.
    limits : Limits
        ``max_bytes`` applies; a larger file is refused unread.

    Returns
    -------
    bytes
        1 to ``limits.max_bytes`` bytes.

    Raises
    ------
    UnreadableImageError
        Missing, empty, no permission, not a regular file (never waits for a pipe), or the disk failed.
    ImageTooLargeError
        More than ``limits.max_bytes`` bytes.
    """
    try:
        _require_file(os.stat(path).st_mode)  # first, because opening some devices has effects (a tape rewinds)
        # The file can be exchanged for a pipe before it is opened: O_NONBLOCK keeps that from waiting for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb", buffering=0) as file:
            status = os.fstat(descriptor)
            _require_file(status.st_mode)
            if status.st_size > limits.max_bytes:
                raise _too_many_bytes(limits, status.st_size)
            return _read_all(file.read, limits)
    except ImageError:
        raise
    except (OSError, ValueError) as error:
        raise _from_os(error) from None


def read_stream(stream: BinaryIO, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """Read a picture from an open binary stream such as ``sys.stdin.buffer``.

    Parameters
    ----------
    stream : binary file object
        Read until its end, but never more than ``limits.max_bytes + 1`` bytes.
    limits : Limits
        ``max_bytes`` applies.

    Returns
    -------
    bytes
        1 to ``limits.max_bytes`` bytes.

    Raises
    ------
    UnreadableImageError
        Nothing came, the stream is closed, in text mode or not readable, or reading failed.
    ImageTooLargeError
        More than ``limits.max_bytes`` bytes came.
    """
    try:
        return _read_all(stream.read, limits)
    except ImageError:
        raise
    except OSError as error:
        if error.errno is None:  # io.UnsupportedOperation: opened for writing
            raise UnreadableImageError(
                "the input cannot be read: pass an image through a pipe or name a file"
            ) from None
        raise _from_os(error) from None
    except ValueError:
        raise UnreadableImageError("the input is closed: pass an image through a pipe or name a file") from None


def _read_all(read: Callable[[int], bytes | None], limits: Limits) -> bytes:
    parts: list[bytes] = []
    room = limits.max_bytes + 1
    while room:
        part = read(min(room, READ_STEP))
        if not part:
            break
        if not isinstance(part, bytes):
            raise UnreadableImageError("the input is text: open it in binary mode")
        parts.append(part)
        room -= len(part)
    if not room:
        raise _too_many_bytes(limits)
    if not parts:
        raise UnreadableImageError("the file is empty: copy or export it again")
    return b"".join(parts)


def decode(source: bytes | str | os.PathLike[str], limits: Limits = DEFAULT_LIMITS) -> np.ndarray:
    """Decode a JPEG, PNG, WebP, BMP or TIFF picture.

    The EXIF orientation is applied, transparency is composited on white, 16-bit samples are scaled to 8 bits, and
    grey, palette and CMYK pictures become RGB.  Embedded colour profiles are ignored.

    Parameters
    ----------
    source : bytes, str or os.PathLike
        The contents of a file, or a path to read them from.
    limits : Limits
        Checked before anything is decoded.

    Returns
    -------
    numpy.ndarray
        uint8, shape (height, width, 3), RGB, 0 to 255, C-contiguous, writable.

    Raises
    ------
    ImageError
        Cannot be read, is too large, damaged or not supported; one of the subclasses says which.
    """
    data = source if isinstance(source, bytes) else read_bytes(source, limits)
    if len(data) > limits.max_bytes:
        raise _too_many_bytes(limits, len(data))
    header = read_header(data)
    if header.pixels > limits.max_pixels:
        size = f"{header.width} x {header.height}"
        raise ImageTooLargeError(
            f"the image has {size} pixels, more than the limit of {limits.max_pixels}:"
            " shrink the image, or raise the pixel limit"
        )
    if header.orientation_entry is not None:  # libtiff would apply some orientations itself and OpenCV others
        data = _upright_tiff(data, header.orientation_entry)
    try:
        return _to_rgb(_decode_pixels(data, header), header)
    except MemoryError:
        raise ImageTooLargeError("not enough memory to decode the image: shrink it, or close other programs") from None


def _upright_tiff(data: bytes, entry: int) -> bytes:
    changed = bytearray(data)
    struct.pack_into(("<" if data[:2] == b"II" else ">") + "HHIHH", changed, entry, 274, 3, 1, 1, 0)
    return bytes(changed)


def _decode_pixels(data: bytes, header: Header) -> np.ndarray:
    """Decode into whatever channels and depth OpenCV gives, as stored; the size is the header's."""
    import cv2
    import numpy as np

    colour = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    keep_channels = header.has_alpha or header.grey_key is not None
    pixels: np.ndarray | None
    try:
        with _quiet_codecs() as said:
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED if keep_channels else colour)
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError from None
        pixels = None
    if pixels is None or any(remark in said() for remark in LOST_DATA):
        raise DamagedImageError(f"the {header.format}'s image data is corrupt: copy or export the file again")
    if pixels.shape[:2] != (header.height, header.width):
        raise DamagedImageError(
            f"the {header.format} contradicts itself about its size: open it in an image editor and save it again"
        )
    if pixels.dtype not in (np.uint8, np.uint16) or pixels.shape[2:] not in ((), (1,), (3,), (4,)):
        raise UnsupportedImageError(
            f"the {header.format} has an unusual kind of pixels: save the image as an ordinary 8-bit JPEG or PNG"
        )
    return pixels


def _to_rgb(pixels: np.ndarray, header: Header) -> np.ndarray:
    """Turn decoded pixels into upright uint8 RGB; ``pixels`` may be overwritten."""
    import cv2
    import numpy as np

    if header.grey_key is not None:
        pixels[pixels == header.grey_key] = np.iinfo(pixels.dtype).max
    if pixels.dtype == np.uint16:
        pixels = cv2.convertScaleAbs(pixels, alpha=1 / 257)  # 65535 becomes 255, rounded
    if pixels.ndim == 2 or pixels.shape[2] == 1:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)
    elif pixels.shape[2] == 4:
        pixels = _on_white(pixels, header.premultiplied)
    else:
        cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=pixels)  # in place: a large picture need not be held twice
    return np.ascontiguousarray(_upright(pixels, header.orientation), dtype=np.uint8)


def _on_white(bgra: np.ndarray, premultiplied: bool) -> np.ndarray:
    """Composite uint8 (H, W, 4) BGRA on white to uint8 (H, W, 3) RGB."""
    import numpy as np

    rgb = np.empty((*bgra.shape[:2], 3), np.uint8)
    for top in range(0, len(bgra), BAND_ROWS):
        band = bgra[top : top + BAND_ROWS].astype(np.uint16)  # 255 * 255 + 127 still fits
        colour, alpha = band[..., 2::-1], band[..., 3:]
        if premultiplied:
            rgb[top : top + BAND_ROWS] = np.minimum(colour + (WHITE - alpha), WHITE)
        else:
            rgb[top : top + BAND_ROWS] = (colour * alpha + WHITE * (WHITE - alpha) + 127) // 255
    return rgb


def _upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Undo an EXIF orientation (1 to 8); 5 to 8 exchange height and width."""
    import cv2

    turned: np.ndarray = image
    if orientation == 2:
        turned = cv2.flip(image, 1)
    elif orientation == 3:
        turned = cv2.rotate(image, cv2.ROTATE_180)
    elif orientation == 4:
        turned = cv2.flip(image, 0)
    elif orientation == 5:
        turned = cv2.transpose(image)
    elif orientation == 6:
        turned = cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE)
    elif orientation == 7:
        turned = cv2.rotate(cv2.transpose(image), cv2.ROTATE_180)
    elif orientation == 8:
        turned = cv2.rotate(image, cv2.ROTATE_90_COUNTERCLOCKWISE)
    return turned


class _CodecStderr:
    """Somewhere for libjpeg and libpng to write to instead of standard error.

    They print through C's ``stderr`` and offer no switch that OpenCV would pass on.  Descriptor 2 belongs to the whole
    process, so it stays as it is; exchanging the C library's ``stderr`` pointer reaches only code that prints through
    it, not Python's own output or log of any thread, nor programs started meanwhile.  The memory stream is never
    closed, so a thread that has just fetched the pointer cannot write to freed memory.
    """

    def __init__(self) -> None:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018 - AttributeError here: only glibc's stderr is a variable
        libc.fmemopen.restype = ctypes.c_void_p
        libc.fmemopen.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
        libc.fflush.argtypes = libc.rewind.argtypes = [ctypes.c_void_p]
        self._libc = libc
        self._text = ctypes.create_string_buffer(CHATTER_BYTES)
        self._stream = libc.fmemopen(self._text, CHATTER_BYTES, b"w")
        self._slot = ctypes.c_void_p.in_dll(libc, "stderr")
        if not self._stream:
            raise OSError("fmemopen failed")

    @contextlib.contextmanager
    def capture(self) -> Iterator[None]:
        self._libc.rewind(self._stream)
        ctypes.memset(self._text, 0, CHATTER_BYTES)
        before = self._slot.value
        self._slot.value = self._stream
        try:
            yield
        finally:
            self._slot.value = before
            self._libc.fflush(self._stream)

    def text(self) -> bytes:
        return self._text.value


@functools.cache
def _codec_stderr() -> _CodecStderr | None:
    """The exchange, or nothing where the C library does not allow it (then the libraries' remarks are printed)."""
    try:
        return _CodecStderr()
    except (AttributeError, OSError, TypeError, ValueError):
        return None


_CODEC_LOCK = threading.Lock()  # one pointer and one log level a process
# A fork while another thread decodes would leave the child with a lock that nobody holds and an exchanged stderr.
os.register_at_fork(before=_CODEC_LOCK.acquire, after_in_parent=_CODEC_LOCK.release, after_in_child=_CODEC_LOCK.release)


@contextlib.contextmanager
def _quiet_codecs() -> Iterator[Callable[[], bytes]]:
    """Keep OpenCV and its libraries off standard error; yields a function that tells what they said."""
    import cv2

    logging = cv2.utils.logging
    with _CODEC_LOCK, contextlib.ExitStack() as stack:
        stack.callback(logging.setLogLevel, logging.setLogLevel(logging.LOG_LEVEL_SILENT))
        remarks = b""
        exchange = _codec_stderr()
        try:
            if exchange is not None:
                stack.enter_context(exchange.capture())
            yield lambda: remarks
        finally:
            stack.close()
            if exchange is not None:
                remarks = exchange.text()


def fit(image: np.ndarray, height: int, width: int, crop: str) -> np.ndarray:
    """Bring a picture to the size that a network expects.

    Shrinking averages over the area (no aliasing of hairs and rulers).  Enlarging interpolates linearly: unlike cubic
    interpolation it adds no bright or dark rims along a lesion's border.

    Parameters
    ----------
    image : numpy.ndarray
        uint8, shape (H, W, 3), any H and W of at least 1.
    height, width : int
        Wanted size in pixels, at least 1.
    crop : {"squeeze", "center"}
        ``"squeeze"`` keeps everything and ignores the aspect ratio; ``"center"`` first cuts out the largest centred
        part that has the wanted aspect ratio.

    Returns
    -------
    numpy.ndarray
        uint8, shape (height, width, 3), C-contiguous; ``image`` itself if it already has that size.

    Raises
    ------
    ValueError
        Unknown ``crop``, a size below 1, or ``image`` is not a picture.
    """
    import cv2
    import numpy as np

    if crop not in ("squeeze", "center"):
        raise ValueError(f"crop must be 'squeeze' or 'center', not {crop!r}")
    if height < 1 or width < 1:
        raise ValueError(f"the size must be at least 1 x 1, not {height} x {width}")
    _require_rgb(image)
    if image.shape[:2] == (height, width):
        return image
    if crop == "center":
        tall, wide = image.shape[:2]
        if wide * height > tall * width:
            tall, wide = tall, max(1, round(tall * width / height))
        else:
            tall, wide = max(1, round(wide * height / width)), wide
        top, left = (image.shape[0] - tall) // 2, (image.shape[1] - wide) // 2
        image = image[top : top + tall, left : left + wide]
    # Two steps, because OpenCV's area method stops averaging in both directions if one of them is enlarged.
    smaller = (min(width, image.shape[1]), min(height, image.shape[0]))
    if smaller != (image.shape[1], image.shape[0]):
        image = cv2.resize(image, smaller, interpolation=cv2.INTER_AREA)
    if smaller != (width, height):
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(image)


def _require_rgb(image: np.ndarray) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != "uint8" or 0 in image.shape:
        raise ValueError(f"the image must be uint8 of shape (H, W, 3), not {image.dtype} of shape {image.shape}")


def write_png(path: str | os.PathLike[str], rgb: np.ndarray) -> None:
    """Write a picture as PNG so that the file is either complete or not there at all.

    Parameters
    ----------
    path : str or os.PathLike
        The file to write; an existing regular file is replaced, a symbolic link is followed.
    rgb : numpy.ndarray
        uint8, shape (H, W, 3), RGB.

    Raises
    ------
    UnreadableImageError
        No such folder, no permission, not a regular file, or the disk is full or failed.
    ImageError
        The picture could not be encoded.
    ValueError
        ``rgb`` is not a picture.
    """
    import cv2
    import numpy as np

    _require_rgb(rgb)
    try:
        with _quiet_codecs():
            done, encoded = cv2.imencode(".png", cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2BGR))
    except (cv2.error, MemoryError):
        done = False
    if not done:
        raise ImageError("the picture could not be encoded as PNG: close other programs (memory), or make it smaller")
    try:
        _replace_file(os.path.realpath(path), encoded.tobytes())
    except ImageError:
        raise
    except (OSError, ValueError) as error:
        raise _from_os(error) from None


def _replace_file(path: str, content: bytes) -> None:
    """Write through a temporary file in the same folder; that file never stays behind."""
    with contextlib.suppress(FileNotFoundError):
        _require_file(os.lstat(path).st_mode)  # renaming over a device such as /dev/null would delete it
    # Not derived from the target's name, which may already have the longest length that the file system allows.
    temporary = os.path.join(os.path.dirname(path), f".{secrets.token_hex(8)}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)  # less the umask
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)  # a power cut after the rename must not leave an empty file
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
