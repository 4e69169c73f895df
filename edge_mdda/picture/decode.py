"""Pictures in and out: bytes from a file or a stream, RGB arrays from bytes, the network's size from an array.

Whatever is handed over, the outcome is an array or an :class:`ImageError` with one line that says what is wrong and
what to do.  The size is known before anything is decoded (see :mod:`edge_mdda.picture.headers`), and numpy and OpenCV
are imported only once a picture has passed that check.
"""

from __future__ import annotations

import os
import re
import struct
from dataclasses import replace
from typing import TYPE_CHECKING

from edge_mdda.errors import (
    DamagedImageError,
    ImageError,
    ImageTooLargeError,
    UnreadableImageError,
    UnsupportedImageError,
)
from edge_mdda.files import (
    DEFAULT_LIMITS,
    Content,
    Limits,
    from_os,
    read_bytes,
    read_stream,
    replace_file,
    too_many_bytes,
)
from edge_mdda.picture.codec_stderr import quiet_codecs
from edge_mdda.picture.headers import Header, read_header
from edge_mdda.picture.parsing import Primaries

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "Limits",
    "check_header",
    "decode",
    "fit",
    "read_bytes",
    "read_stream",
    "write_png",
]

BAND_ROWS = 64  # rows composited at a time, so that the wide intermediate stays small
SENSOR_BITS = (10, 12, 14, 16)  # bits of a sample that files of 16 bits hold
WHITE = 255  # grey level of the background behind transparent pixels

# What libjpeg says when it has filled missing data with invention (decoded zeros, or whatever the memory held before,
# which may be the previous patient's picture).
LOST_DATA = re.compile(rb"[Pp]remature end|bad Huffman code|instead of RST|Inconsistent progression")
# Data left over after the last block: the decoder lost its place earlier on.  Between other markers it is harmless.
LEFT_OVER = re.compile(rb"(\d+) extraneous bytes before marker 0x(?:c4|d9|da)")
PADDING_BYTES = 16  # bytes left over that are taken for a camera's padding


def decode(content: Content, limits: Limits = DEFAULT_LIMITS) -> np.ndarray:
    """Decode a JPEG, PNG, WebP, BMP or TIFF picture; HEIC where the package pillow-heif is installed, a
    photograph in DICOM where pydicom is.

    The EXIF orientation is applied, transparency is composited on white, 16-bit samples are scaled to 8 bits, and
    grey, palette and CMYK pictures become RGB, and colours are brought from the picture's profile to sRGB.

    Parameters
    ----------
    content : bytes, bytearray or memoryview
        The whole content of a file; :func:`read_bytes` reads one.
    limits : Limits
        Checked before anything is decoded.

    Returns
    -------
    numpy.ndarray
        uint8, shape (height, width, 3), RGB, 0 to 255, C-contiguous, writable.

    Raises
    ------
    ImageError
        Too large, damaged or not supported; one of the subclasses says which.
    TypeError
        Not bytes.
    """
    if not isinstance(content, (bytes, bytearray, memoryview)):
        got = type(content).__name__
        raise TypeError(f"decode: expected the bytes of a picture, got {got}: read a file with read_bytes(path)")
    try:
        data = bytes(content)
        return _decode_rgb(data, check_header(data, limits))
    except MemoryError:
        raise ImageTooLargeError("not enough memory to decode the image: shrink it, or close other programs") from None


def check_header(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Header:
    """Everything that :func:`decode` refuses without decoding; loads neither numpy nor OpenCV.

    Raises
    ------
    ImageError
        Too large, damaged or not supported.
    """
    if len(data) > limits.max_bytes:
        raise too_many_bytes(limits, len(data))
    header = read_header(data)
    if header.pixels > limits.max_pixels:
        size = f"{header.width} x {header.height}"
        if header.pixels > header.width * header.height:
            size += f" pixels in tiles of {header.pixels}"
        raise ImageTooLargeError(
            f"the image has {size} pixels, more than the limit of {limits.max_pixels}:"
            " shrink the image, or raise the pixel limit"
        )
    return header


def _upright_tiff(data: bytes, entry: int) -> bytes:
    changed = bytearray(data)
    struct.pack_into(("<" if data[:2] == b"II" else ">") + "HHIHH", changed, entry, 274, 3, 1, 1, 0)
    return bytes(changed)


def _decode_rgb(data: bytes, header: Header) -> np.ndarray:
    import cv2

    if header.format == "HEIC":
        return _decode_heic(data, header)
    if header.format == "DICOM":
        return _decode_dicom(data)
    if header.orientation_entry is not None:  # libtiff would apply some orientations itself and OpenCV others
        data = _upright_tiff(data, header.orientation_entry)
    try:
        return _to_rgb(_decode_pixels(data, header), header)
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError from None
        raise _corrupt(header) from None


def _decode_heic(data: bytes, header: Header) -> np.ndarray:
    from edge_mdda.picture.heic import decode_heic

    pixels, profile, primaries = decode_heic(data)
    if pixels.dtype != "uint8" or pixels.shape[2:] not in ((3,), (4,)) or pixels[..., 0].size > header.pixels:
        raise _corrupt(header)
    bgra = pixels[..., [2, 1, 0, 3]] if pixels.shape[2] == 4 else None
    rgb = pixels.copy() if bgra is None else _on_white(bgra, premultiplied=False)
    return _in_srgb(rgb, profile, primaries)


def _decode_dicom(data: bytes) -> np.ndarray:
    import cv2

    from edge_mdda.picture.dicom import JPEG_2000, RAW, codestream, raw_pixels, read_dicom

    photograph = read_dicom(data)
    outer = photograph.header
    try:
        if photograph.syntaxes == RAW:
            rgb = _to_rgb(raw_pixels(photograph), outer)
        else:
            inner = codestream(photograph)
            header = replace(outer, format="JPEG 2000") if photograph.syntaxes == JPEG_2000 else read_header(inner)
            if (header.width, header.height) != (outer.width, outer.height):
                raise DamagedImageError("the DICOM file contradicts itself about its size: copy or export it again")
            # In DICOM the object's own profile counts, and no EXIF turns a picture.
            header = replace(header, profile=outer.profile or header.profile, orientation=1)
            rgb = _to_rgb(_decode_pixels(inner, header), header)
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError from None
        raise _corrupt(outer) from None
    return WHITE - rgb if photograph.colours == "MONOCHROME1" else rgb  # there 0 is white


def _in_srgb(rgb: np.ndarray, profile: bytes | None, primaries: Primaries | None) -> np.ndarray:
    """Bring (H, W, 3) uint8 RGB to sRGB, in place."""
    if profile is None and primaries is None:  # as nearly all are: nothing more is loaded
        return rgb
    from edge_mdda.picture.colour import converter

    convert = converter(profile, primaries)
    return rgb if convert is None else convert(rgb)


def _corrupt(header: Header) -> DamagedImageError:
    return DamagedImageError(f"the {header.format}'s image data is corrupt: copy or export the file again")


def _tells_of_damage(remarks: bytes, data: bytes) -> bool:
    """Whether libjpeg's remarks mean that a part of the picture is invented."""
    left_over = LEFT_OVER.search(remarks)
    if left_over is None:
        return LOST_DATA.search(remarks) is not None
    size = int(left_over[1])
    return size > PADDING_BYTES and bytes(min(size, len(data))) + b"\xff\xd9" not in data  # zeros are padding, too


def _decode_pixels(data: bytes, header: Header) -> np.ndarray:
    """Decode into the depth that OpenCV gives; RGB, grey or, with transparency, BGRA. The size is the header's."""
    import cv2
    import numpy as np

    # A JPEG decoder that gives RGB itself spares a pass over the picture, and 0.8 MB of OpenCV's code. Others are
    # not asked: for 16-bit TIFF OpenCV 5.0 gives BGR all the same. OpenCV 4.10 knows no such flag.
    in_rgb = getattr(cv2, "IMREAD_COLOR_RGB", None) if header.format == "JPEG" else None
    colour = (in_rgb or cv2.IMREAD_COLOR) | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    keep_channels = header.has_alpha or header.grey_key is not None
    with quiet_codecs() as said:
        pixels: np.ndarray | None = cv2.imdecode(
            np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED if keep_channels else colour
        )
    if pixels is None or _tells_of_damage(said(), data):
        raise _corrupt(header)
    if pixels.shape[:2] != (header.height, header.width):
        raise DamagedImageError(
            f"the {header.format} contradicts itself about its size: open it in an image editor and save it again"
        )
    if pixels.dtype not in (np.uint8, np.uint16) or pixels.shape[2:] not in ((), (1,), (3,), (4,)):
        raise UnsupportedImageError(
            f"the {header.format} has an unusual kind of pixels: save the image as an ordinary 8-bit JPEG or PNG"
        )
    if pixels.shape[2:] == (3,) and (keep_channels or not in_rgb):
        cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=pixels)  # in place: a large picture need not be held twice
    return pixels


def _to_rgb(pixels: np.ndarray, header: Header) -> np.ndarray:
    """Turn decoded pixels into upright uint8 RGB; ``pixels`` may be overwritten."""
    import cv2
    import numpy as np

    if header.grey_key is not None:
        pixels[pixels == header.grey_key] = np.iinfo(pixels.dtype).max
    if pixels.dtype == np.uint16:
        # Cameras store 10, 12 or 14 bits in 16; taken for 16 they would be nearly black.
        largest = next(top for bits in SENSOR_BITS if int(pixels.max()) <= (top := (1 << bits) - 1))
        pixels = cv2.convertScaleAbs(pixels, alpha=WHITE / largest)  # the largest becomes 255, rounded
    if pixels.ndim == 2 or pixels.shape[2] == 1:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)
    elif pixels.shape[2] == 4:
        pixels = _on_white(pixels, header.premultiplied)
    upright = np.ascontiguousarray(_upright(pixels, header.orientation), dtype=np.uint8)
    return _in_srgb(upright, header.profile, header.primaries)


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
        with quiet_codecs():
            done, encoded = cv2.imencode(".png", cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2BGR))
    except (cv2.error, MemoryError):
        done = False
    if not done:
        raise ImageError("the picture could not be encoded as PNG: close other programs (memory), or make it smaller")
    try:
        replace_file(os.path.realpath(path), encoded.tobytes())
    except ImageError:
        raise
    except FileNotFoundError:  # the file is a new one: what is missing is where it should go
        folder = os.path.dirname(os.path.realpath(path))
        raise UnreadableImageError(f"there is no folder {folder}: make it, or check the name") from None
    except (OSError, ValueError) as error:
        raise from_os(error) from None
