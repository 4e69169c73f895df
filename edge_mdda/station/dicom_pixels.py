"""A picture as DICOM keeps it: a JPEG as it came where DICOM can hold it, else its pixels, upright, in sRGB."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_mdda.errors import DamagedImageError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

JPEG_BASELINE = "1.2.840.10008.1.2.4.50"  # PS3.6: JPEG Baseline (Process 1)
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"  # PS3.6: Explicit VR Little Endian
LOSSLESS = ("PNG", "BMP")
_SOF0, _SOS, _APP14 = 0xC0, 0xDA, 0xEE  # ISO/IEC 10918-1, table B.1
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a length


@dataclass(frozen=True)
class Frame:
    """What a JPEG's headers say."""

    marker: int
    """Second byte of its start-of-frame marker; 0xC0 is baseline."""
    width: int
    height: int
    components: tuple[int, ...]
    """Their identifiers."""
    adobe: int | None
    """Adobe's colour transform: 0 none, 1 YCbCr, 2 YCCK; None without their marker."""

    @property
    def fits_baseline(self) -> bool:
        """Whether DICOM's baseline syntax holds it with colours that a viewer need not guess."""
        grey = len(self.components) == 1
        # As libjpeg decides: without a marker of Adobe or JFIF, the letters R, G, B as identifiers mean RGB.
        colour = len(self.components) == 3 and self.adobe in (None, 1) and bytes(self.components) != b"RGB"
        return self.marker == _SOF0 and (grey or colour)


def frame_of(content: bytes) -> Frame:
    """The first frame of a JPEG that :mod:`edge_mdda.picture.headers` has accepted.

    Raises
    ------
    DamagedImageError
        It has none.
    """
    position, adobe = 2, None
    while position + 4 <= len(content):
        if content[position] != 0xFF or content[position + 1] in (0x00, 0xFF):
            position += 1  # padding and stray bytes, as libjpeg skips them
            continue
        marker = content[position + 1]
        position += 2
        if marker in _ALONE:
            continue
        length = int.from_bytes(content[position : position + 2], "big")
        body = content[position + 2 : position + length]
        if marker == _APP14 and body.startswith(b"Adobe") and len(body) >= 12:
            adobe = body[11]
        if marker in _FRAMES:
            height, width = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
            return Frame(marker, width, height, tuple(body[6 + 3 * k] for k in range(body[5])), adobe)
        if marker == _SOS:
            break
        position += length
    raise DamagedImageError("this JPEG has no frame: take the picture again")


def put_pixels(dataset: Dataset, content: bytes) -> str:
    """Put a picture into a dataset, with all attributes of the Image Pixel module; return the transfer syntax.

    Raises
    ------
    ImageError
        The picture cannot be decoded.
    """
    from pydicom.encaps import encapsulate

    from edge_mdda.picture.decode import check_header, decode

    header = check_header(content)
    lossy = header.format == "JPEG"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    if lossy and header.orientation == 1 and header.primaries is None and frame_of(content).fits_baseline:
        samples = len(frame_of(content).components)
        dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = header.height, header.width, samples
        # PS3.5 8.2.1: YBR_FULL_422 stands for JPEG's YCbCr, whatever the subsampling in its own headers.
        dataset.PhotometricInterpretation = "YBR_FULL_422" if samples == 3 else "MONOCHROME2"
        dataset.PixelData = encapsulate([content])
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
        syntax = JPEG_BASELINE
        if header.profile:
            dataset.ICCProfile = header.profile
    else:
        rgb = decode(content)
        dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = *rgb.shape[:2], 3
        dataset.PhotometricInterpretation = "RGB"
        pixels = rgb.tobytes()
        dataset.PixelData = pixels + bytes(len(pixels) % 2)
        dataset["PixelData"].VR = "OB"
        syntax = EXPLICIT_LITTLE
    if dataset.SamplesPerPixel == 3:
        dataset.PlanarConfiguration = 0
    if header.format in LOSSLESS:
        dataset.LossyImageCompression = "00"
    elif not lossy:
        dataset.LossyImageCompression = ""  # nobody knows what a WebP, a TIFF or a HEIC went through
    else:
        dataset.LossyImageCompression = "01"
        size = header.width * header.height * dataset.SamplesPerPixel
        dataset.LossyImageCompressionRatio = f"{size / len(content):.4g}"
        dataset.LossyImageCompressionMethod = "ISO_10918_1"
    return syntax
