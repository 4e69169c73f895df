"""A page of A4, written from top to bottom: its fonts are embedded, and the same input gives the same bytes."""

from __future__ import annotations

import io
from typing import Any

from edge_mdda.errors import StationError

MM = 72 / 25.4  # points
WIDTH, HEIGHT = 210 * MM, 297 * MM  # points, A4 (ISO 216)
MARGIN = 16 * MM  # points
LEADING = 1.28  # line's height as a multiple of the font's size
FONT, BOLD = "Vera", "VeraBd"  # both come with reportlab, free to embed
GREY = 0.45  # grey level of small print, 0 black, 1 white: contrast 4.7 to 1 on white
CUT = "… (shortened)"


class Page:
    """One page; ``y`` is where the next line goes, in points from the bottom."""

    def __init__(self, title: str, subject: str) -> None:
        from reportlab.pdfbase import pdfmetrics
        from reportlab.pdfbase.ttfonts import TTFont
        from reportlab.pdfgen.canvas import Canvas

        for name in (FONT, BOLD):
            pdfmetrics.registerFont(TTFont(name, f"{name}.ttf"))
        self._glyphs = pdfmetrics.getFont(FONT).face.charToGlyph
        self._buffer = io.BytesIO()
        # invariant: no time of writing and no random identifier in the file.
        self.canvas = Canvas(self._buffer, pagesize=(WIDTH, HEIGHT), invariant=1)
        self.canvas.setTitle(title)
        self.canvas.setSubject(subject)
        self.canvas.setCreator("edge-mdda")
        self.y = HEIGHT - MARGIN

    def wrapped(self, text: str, width: float, size: float, font: str = FONT, most: int | None = None) -> list[str]:
        """A text as lines of at most ``width`` points; what is beyond ``most`` lines is cut, and says so.

        Raises
        ------
        StationError
            The font lacks a letter: a page with boxes for letters would name nobody.
        """
        from reportlab.lib.utils import simpleSplit

        lacking = sorted({c for c in text if not c.isspace() and ord(c) not in self._glyphs})
        if lacking:
            letters = " ".join(lacking[:5])
            raise StationError(f"the report's font lacks {letters}: write the name or the note in Latin letters")
        lines: list[str] = simpleSplit(text, font, size, width)
        if most is not None and len(lines) > most:
            kept = " ".join(lines[:most])
            while kept and len(simpleSplit(kept + CUT, font, size, width)) > most:
                kept = kept[:-1]
            lines = simpleSplit(kept + CUT, font, size, width)
        return lines

    def text(
        self,
        text: str,
        size: float = 8.5,
        font: str = FONT,
        left: float = MARGIN,
        width: float = WIDTH - 2 * MARGIN,
        grey: float = 0.0,
        most: int | None = None,
    ) -> None:
        """Write a text at ``y`` and go on below it; sizes in points."""
        self.canvas.setFillGray(grey)
        self.canvas.setFont(font, size)
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

    def done(self) -> bytes:
        """The file."""
        self.canvas.showPage()
        self.canvas.save()
        return self._buffer.getvalue()
