"""A page of A4, written from top to bottom: its fonts are embedded, and the same input gives the same bytes."""

from __future__ import annotations

import io
import unicodedata
from pathlib import Path
from typing import Any

from edge_mdda.digest import sha256
from edge_mdda.errors import StationError

MM = 72 / 25.4  # points
WIDTH, HEIGHT = 210 * MM, 297 * MM  # points, A4 (ISO 216)
MARGIN = 16 * MM  # points
LEADING = 1.28  # line's height as a multiple of the font's size
FONT, BOLD = 0, 1  # which of a pair
FONTS = (
    ("Vera.ttf", "VeraBd.ttf"),  # Bitstream Vera, comes with reportlab: Western European languages
    *(
        (f"{folder}/DejaVuSans.ttf", f"{folder}/DejaVuSans-Bold.ttf")  # made from Vera: Latin, Greek, Cyrillic
        for folder in ("/usr/share/fonts/truetype/dejavu", "/usr/share/fonts/TTF", "/usr/share/fonts/dejavu-sans-fonts")
    ),
)
"""Free to embed, regular and bold; the first pair with all letters of a page is taken."""
GREY = 0.45  # grey level of small print, 0 black, 1 white: contrast 4.7 to 1 on white
CUT = "… (shortened)"


class Page:
    """One page; ``y`` is where the next line goes, in points from the bottom."""

    def __init__(self, title: str, subject: str, written: str) -> None:
        from reportlab import rl_config
        from reportlab.pdfgen.canvas import Canvas

        rl_config.useA85 = 0  # pictures as they are, without a quarter more bytes
        self._fonts, self.fonts_sha256 = _take_fonts(written)
        self._buffer = io.BytesIO()
        # invariant: no time of writing and no random identifier in the file.
        self.canvas = Canvas(self._buffer, pagesize=(WIDTH, HEIGHT), invariant=1)
        self.canvas.setTitle(title)
        self.canvas.setSubject(subject)
        self.canvas.setCreator("edge-mdda")
        self.y = HEIGHT - MARGIN

    def wrapped(self, text: str, width: float, size: float, font: int = FONT, most: int | None = None) -> list[str]:
        """A text as lines of at most ``width`` points; what is beyond ``most`` lines is cut, and says so."""
        from reportlab.lib.utils import simpleSplit

        name = self._fonts[font]
        lines: list[str] = simpleSplit(text, name, size, width)
        if most is not None and len(lines) > most:
            kept = " ".join(lines[:most])
            while kept and len(simpleSplit(kept + CUT, name, size, width)) > most:
                kept = kept[:-1]
            lines = simpleSplit(kept + CUT, name, size, width)
        return lines

    def text(
        self,
        text: str,
        size: float = 8.5,
        font: int = FONT,
        left: float = MARGIN,
        width: float = WIDTH - 2 * MARGIN,
        grey: float = 0.0,
        most: int | None = None,
    ) -> None:
        """Write a text at ``y`` and go on below it; sizes in points."""
        self.canvas.setFillGray(grey)
        self.canvas.setFont(self._fonts[font], size)
        for line in self.wrapped(text, width, size, font, most):
            self.y -= size * LEADING
            self.canvas.drawString(left, self.y, line)
        self.canvas.setFillGray(0)

    def heading(self, text: str, left: float = MARGIN, width: float = WIDTH - 2 * MARGIN) -> None:
        """A small heading with a thin line above."""
        self.y -= 5
        self.canvas.setLineWidth(0.4)
        self.canvas.line(left, self.y, left + width, self.y)
        self.text(text, 9, BOLD, left, width)
        self.y -= 1

    def picture(self, content: bytes, left: float, bottom: float, width: float, height: float) -> None:
        """A picture within a box, its shape kept; a JPEG's bytes go in as they are."""
        from reportlab.lib.utils import ImageReader

        reader: Any = ImageReader(io.BytesIO(content))
        self.canvas.drawImage(reader, left, bottom, width, height, preserveAspectRatio=True, anchor="sw")

    def code(self, text: str, left: float, bottom: float, side: float) -> None:
        """A QR code (ISO/IEC 18004, error correction M) with its quiet zone of 4 modules, in a square."""
        import segno

        rows = [list(row) for row in segno.make_qr(text, error="m", boost_error=False).matrix_iter(border=4)]
        module = side / len(rows)
        path = self.canvas.beginPath()
        for down, row in enumerate(rows):
            for across, dark in enumerate(row):
                if dark:
                    path.rect(left + across * module, bottom + side - (down + 1) * module, module, module)
        self.canvas.drawPath(path, stroke=0, fill=1)

    def attach(self, name: str, content: bytes) -> None:
        """A file inside the file (PDF 32000-1, 7.11.4), compressed."""
        from reportlab.pdfbase import pdfdoc

        document = self.canvas._doc
        stream = pdfdoc.PDFStream(
            pdfdoc.PDFDictionary({"Type": pdfdoc.PDFName("EmbeddedFile")}), content, [pdfdoc.PDFZCompress]
        )
        specification = pdfdoc.PDFDictionary(
            {
                "Type": pdfdoc.PDFName("Filespec"),
                "F": pdfdoc.PDFString(name),
                "UF": pdfdoc.PDFString(name),
                "EF": pdfdoc.PDFDictionary({"F": document.Reference(stream)}),
            }
        )
        names = pdfdoc.PDFArray([pdfdoc.PDFString(name), document.Reference(specification)])
        tree = pdfdoc.PDFDictionary({"EmbeddedFiles": pdfdoc.PDFDictionary({"Names": names})})
        document.Catalog.Names = tree

    def done(self) -> bytes:
        """The file."""
        self.canvas.showPage()
        self.canvas.save()
        return self._buffer.getvalue()


def _take_fonts(written: str) -> tuple[tuple[str, ...], str]:
    """Register the first pair of fonts that has every letter; return their names and the SHA-256 of the two files.

    Raises
    ------
    StationError
        None has: a page with boxes for letters would name nobody.
    """
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.ttfonts import TTFError, TTFont

    letters = {c for c in written if not c.isspace()}
    turned = sorted(c for c in letters if unicodedata.bidirectional(c) in ("R", "AL"))
    lacking = turned
    for regular, bold in () if turned else FONTS:
        try:
            pair = [TTFont(Path(path).stem, path) for path in (regular, bold)]
        except TTFError:
            continue
        lacking = sorted(c for c in letters if any(ord(c) not in font.face.charToGlyph for font in pair))
        if not lacking:
            for font in pair:
                pdfmetrics.registerFont(font)
            digest = sha256(b"".join(Path(font.face.filename).read_bytes() for font in pair)).hexdigest()
            return tuple(font.fontName for font in pair), digest
    what = "writes from left to right alone and cannot place" if turned else "has no letter for"
    remedy = "write the name or the note in Latin letters" + ("" if turned else ", or install DejaVu fonts")
    raise StationError(f"the report {what} {' '.join(lacking[:5])}: {remedy}")
