"""The process that judges pictures: ``python -m edge_mdda.station.worker OPTIONS``, spoken to over its pipes.

It alone imports :class:`edge_mdda.Screener`. It never sees who a picture is of.
"""

from __future__ import annotations

import json
import os
import sys
from typing import IO, TYPE_CHECKING, Any

from edge_mdda.errors import EdgeMddaError
from edge_mdda.files import Limits
from edge_mdda.station.pipe import receive, send

if TYPE_CHECKING:
    import numpy as np

    from edge_mdda.screening import Screener


def png(rgb: np.ndarray) -> bytes:
    """A picture as PNG."""
    import cv2

    done, encoded = cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    if not done:
        raise MemoryError
    return bytes(encoded.tobytes())


def fitted(screener: Screener, content: bytes) -> tuple[np.ndarray, tuple[int, ...], np.ndarray]:
    """What the network sees of a picture, and the height, width and pixels of that part of it as it was stored."""
    import numpy as np

    from edge_mdda.picture.decode import decode, fit
    from edge_mdda.picture.field import useful_square

    manifest = screener.classifier.manifest
    picture = decode(content, screener.limits)
    square = useful_square(picture)
    view = picture if square is None else np.ascontiguousarray(picture[square])
    return fit(view, manifest.height, manifest.width, manifest.crop), view.shape[:2], view


def answer(screener: Screener, request: dict[str, Any], blobs: list[bytes]) -> tuple[dict[str, Any], list[bytes]]:
    """The answer to one request."""
    manifest = screener.classifier.manifest
    if request["do"] == "screen":
        result = screener.screen(blobs[0], request.get("seed"))
        views = [png(fitted(screener, blobs[0])[0]), b"" if result.purified is None else png(result.purified)]
        names = {"labels": dict(manifest.labels), "malignant": list(manifest.malignant)}
        return {"answer": result.to_dict(), "names": names}, views
    if request["do"] == "look":
        from edge_mdda.picture.quality import judge

        return {"quality": [verdict.to_dict() for verdict in judge(*fitted(screener, blobs[0]))]}, []
    if request["do"] == "draw":
        from edge_mdda.station.drawn import variation

        return {}, [variation(request["number"])]
    return {"name": manifest.name, "sha256": manifest.sha256, "operating_point": manifest.operating_point}, []


def serve(screener: Screener, requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer until the other end closes."""
    while (message := receive(requests)) is not None:
        try:
            header, blobs = answer(screener, *message)
        except EdgeMddaError as error:
            header, blobs = {"error": str(error)}, []
        except MemoryError:
            header, blobs = {"error": "not enough memory: try a smaller picture, or close other programs"}, []
        send(answers, header, blobs)


def main() -> int:
    """Open the model and serve the pipes; the first message says how that went."""
    options = json.loads(sys.argv[1])
    answers = open(os.dup(1), "wb")  # noqa: SIM115  kept until the process ends
    os.dup2(2, 1)  # what a library prints must not break a message
    try:
        from edge_mdda.screening import Screener

        limits = Limits(options.pop("max_pixels"), options.pop("max_bytes"))
        screener = Screener(limits=limits, **options)
    except EdgeMddaError as error:
        send(answers, {"error": str(error)})
        return 1
    with screener:
        send(answers, {"ready": True})
        serve(screener, sys.stdin.buffer, answers)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (KeyboardInterrupt, BrokenPipeError):
        sys.exit(0)
