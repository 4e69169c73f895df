"""DICOM photographs of skin: dermoscopic and other visible-light objects, read by pydicom where it is installed.

The standard's rules hold, not a guess: the transfer syntax says how the pixels are stored and the photometric
interpretation what they mean. pydicom (34 MB) loads for a DICOM file alone.
"""

from __future__ import annotations

import io
import logging
import re
import struct
import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from edge_mdda.errors import ImageError, UnsupportedImageError
from edge_mdda.picture.parsing import Header, check_size, damaged

if TYPE_CHECKING:
    import numpy as np

PREAMBLE = 128  # bytes before the four letters (PS3.10, 7.1)
CLASSES = {
    "1.2.840.10008.5.1.4.1.1.77.1.7": "Dermoscopic Photography Image Storage",
    "1.2.840.10008.5.1.4.1.1.77.1.4": "VL Photographic Image Storage",
}
"""SOP classes that are read."""
RAW = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1")  # implicit and explicit little endian
JPEG = ("1.2.840.10008.1.2.4.50",)  # baseline
JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")  # lossless, and lossy or lossless
COLOURS = {
    RAW: ("RGB", "YBR_FULL", "MONOCHROME1", "MONOCHROME2"),
    JPEG: ("RGB", "YBR_FULL", "YBR_FULL_422", "MONOCHROME1", "MONOCHROME2"),
    JPEG_2000: ("RGB", "YBR_RCT", "YBR_ICT"),  # OpenCV reads no grey codestream without a container
}
"""Photometric interpretations that are read, by transfer syntaxes."""
TAGS = (
    "SOPClassUID", "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration",
    "BitsAllocated", "BitsStored", "PixelRepresentation", "NumberOfFrames", "ICCProfile", "PixelData", "PatientID",
    "TrackingID",
)  # fmt: skip
MAX_ID = 64  # characters of an LO value (PS3.5, 6.2)
_SYNTAX = re.compile(rb"\x02\x00\x10\x00UI(..)", re.DOTALL)  # the element's head, always explicit little endian
_DEFLATED = b"1.2.840.10008.1.2.1.99"  # would be unpacked without a bound
_ADOBE_RGB = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"  # transform 0: the components are red, green, blue
_SIZ = b"\xff\x4f\xff\x51"  # how a JPEG 2000 codestream begins (ISO/IEC 15444-1, A.5.1)


@dataclass(frozen=True)
class Photograph:
    """What a DICOM object holds.

    Attributes
    ----------
    header : Header
        Size and colour profile.
    syntaxes : tuple of str
        Key of ``COLOURS``.
    colours : str
        Photometric interpretation.
    planar : bool
        Raw pixels come plane by plane.
    pixels : bytes
        As stored: raw, or one compressed frame.
    patient, lesion : str or None
        Patient ID, and the lesion's tracking ID.
    """

    header: Header
    syntaxes: tuple[str, ...]
    colours: str
    planar: bool
    pixels: bytes
    patient: str | None
    lesion: str | None


def is_dicom(data: bytes) -> bool:
    """Whether the four letters are there."""
    return data[PREAMBLE : PREAMBLE + 4] == b"DICM"


def _unsupported(what: str) -> UnsupportedImageError:
    return UnsupportedImageError(f"the DICOM file {what}: export the picture as JPEG or PNG, or send it as JPEG")


def read_dicom(data: bytes) -> Photograph:
    """Read a DICOM photograph without decoding its pixels.

    Raises
    ------
    ImageError
        pydicom is missing, the object is no photograph, is stored in a way that is not read here, or is damaged.
    """
    if find_spec("pydicom") is None:
        raise UnsupportedImageError(
            "this is a DICOM file, for which a package is missing: pip install 'edge-mdda[dicom]', or export it as JPEG"
        )
    found = _SYNTAX.search(data, PREAMBLE)
    if found is None:
        raise damaged("DICOM file", "does not say how it is stored (no transfer syntax)")
    length = struct.unpack("<H", found[1])[0]
    syntax = data[found.end() : found.end() + length].rstrip(b"\0 ").decode("ascii", "replace")
    syntaxes = next((kinds for kinds in COLOURS if syntax in kinds), None)
    if syntaxes is None or _DEFLATED in data[: found.end() + length + PREAMBLE]:
        raise _unsupported(f"is stored as {_name(syntax)}, which is not read here")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _photograph(_dataset(data, syntax), syntaxes)
    except (ImageError, MemoryError):
        raise
    except Exception:  # pydicom raises whatever a hostile file leads it into
        raise damaged("DICOM file", "is cut off or corrupt") from None


def _name(uid: str) -> str:
    from pydicom.uid import UID

    return str(UID(uid, validation_mode=0).name)[:60]


def _dataset(data: bytes, syntax: str) -> Any:
    from pydicom import config, dcmread

    logging.getLogger("pydicom").setLevel(logging.CRITICAL)  # its remarks would stand beside our one line
    before = config.settings.reading_validation_mode
    config.settings.reading_validation_mode = config.IGNORE  # a strange value of a tag is no reason to refuse
    try:
        dataset = dcmread(io.BytesIO(data), specific_tags=list(TAGS))
        for element in dataset:  # values are converted when they are first looked at
            _ = element.value
    finally:
        config.settings.reading_validation_mode = before
    if dataset.file_meta.TransferSyntaxUID != syntax:
        raise damaged("DICOM file", "contradicts itself about its transfer syntax")
    return dataset


def _photograph(dataset: Any, syntaxes: tuple[str, ...]) -> Photograph:
    kind = str(dataset.get("SOPClassUID", ""))
    if kind not in CLASSES:
        raise _unsupported(f"holds «{_name(kind)}», not a photograph of skin ({' or '.join(CLASSES.values())})")
    if int(dataset.get("NumberOfFrames") or 1) != 1:
        raise _unsupported(f"holds {dataset.NumberOfFrames} pictures, and one is judged at a time")
    width, height, colours = int(dataset.Columns), int(dataset.Rows), str(dataset.PhotometricInterpretation)
    check_size("DICOM file", width, height)
    depth = (int(dataset.BitsAllocated), int(dataset.BitsStored), int(dataset.PixelRepresentation))
    samples = 1 if colours.startswith("MONOCHROME") else 3
    if depth != (8, 8, 0) or colours not in COLOURS[syntaxes] or int(dataset.SamplesPerPixel) != samples:
        raise _unsupported(f"has unusual pixels ({colours[:16]}, {depth[1]} of {depth[0]} bits)")
    if syntaxes == RAW:
        pixels = bytes(dataset.PixelData)[: width * height * samples]
        if len(pixels) < width * height * samples:
            raise damaged("DICOM file", "is cut off (it has fewer pixels than it says)")
    else:
        from pydicom.encaps import generate_frames

        pixels = next(generate_frames(dataset.PixelData, number_of_frames=1))
    profile = dataset.get("ICCProfile")
    header = Header("DICOM", width, height, width * height, profile=bytes(profile) if profile else None)
    planar = int(dataset.get("PlanarConfiguration") or 0) == 1
    who = (_identifier(dataset.get("PatientID")), _identifier(dataset.get("TrackingID")))
    return Photograph(header, syntaxes, colours, planar, pixels, *who)


def _identifier(value: object) -> str | None:
    text = "".join(c for c in str(value or "") if c.isprintable()).strip()
    return text[:MAX_ID] or None


def raw_pixels(photograph: Photograph) -> np.ndarray:
    """Pixels that are not compressed, as (H, W, 3) uint8 RGB or (H, W) uint8 grey; a copy."""
    import cv2
    import numpy as np

    header = photograph.header
    flat = np.frombuffer(photograph.pixels, np.uint8)
    if photograph.colours.startswith("MONOCHROME"):
        return flat.reshape(header.height, header.width).copy()
    if photograph.planar:
        pixels = flat.reshape(3, header.height, header.width).transpose(1, 2, 0)
    else:
        pixels = flat.reshape(header.height, header.width, 3)
    if photograph.colours == "YBR_FULL":  # OpenCV's order is Y, Cr, Cb
        return np.asarray(cv2.cvtColor(np.ascontiguousarray(pixels[..., [0, 2, 1]]), cv2.COLOR_YCrCb2RGB))
    return pixels.copy()


def codestream(photograph: Photograph) -> bytes:
    """The compressed picture as a decoder must see it, once its size is found to be the object's.

    Raises
    ------
    ImageError
        The sizes differ, or it is another format than the object says.
    """
    header, content = photograph.header, photograph.pixels
    if photograph.syntaxes == JPEG_2000:
        if not content.startswith(_SIZ) or len(content) < 24:
            raise damaged("DICOM file's", "picture is not the JPEG 2000 that it says")
        right, bottom, left, top = struct.unpack_from(">IIII", content, 8)
        if (right - left, bottom - top) != (header.width, header.height):
            raise damaged("DICOM file", "contradicts itself about its size")
        return content
    if not content.startswith(b"\xff\xd8\xff"):
        raise damaged("DICOM file's", "picture is not the JPEG that it says")
    if photograph.colours != "RGB":
        return content
    # libjpeg takes three components for luma and chroma where a JFIF marker, or none, stands; the object says RGB.
    rest = content[2:]
    if rest.startswith(b"\xff\xe0") and len(rest) > 4:
        rest = rest[2 + struct.unpack_from(">H", rest, 2)[0] :]
    return content[:2] + _ADOBE_RGB + rest
