"""One picture of an archive, one row: what a worker does, and the columns of the table.

A row depends on the picture's bytes and the settings alone. The purifier's seed comes from the hash of the content, so
that neither the worker, nor the order, nor a second try changes an answer.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edge_mdda import NOTICE, __version__
from edge_mdda.digest import sha256
from edge_mdda.errors import ImageError, ModelError, ParamsError
from edge_mdda.files import Limits
from export.archive.listing import read_picture
from export.errors import ExportError

if TYPE_CHECKING:
    import pyarrow as pa

    from edge_mdda.screening import Screener

SEED_DIGITS = 16  # hexadecimal digits of the hash: the 64 bits of a seed
KILLED = "the worker that read it ended each time: look at the file by itself"


@dataclass(frozen=True)
class Settings:
    """What makes an answer, besides the picture."""

    model: str | None
    """Path of the model file, the same on each worker; None for the built-in."""
    runtime: str | None
    preset: str
    model_sha256: str
    version: str = __version__


_of_thread = threading.local()


def _screener(settings: Settings) -> Screener:
    """This thread's screener, opened once; ExportError where this machine would answer by something else."""
    if getattr(_of_thread, "settings", None) == settings:
        return _of_thread.screener
    from edge_mdda.screening import Screener

    if settings.version != __version__:
        raise ExportError(f"a worker runs edge_mdda {__version__}, not {settings.version}: update it")
    screener = Screener(settings.model, settings.runtime, "both", settings.preset)
    if screener.classifier.manifest.sha256 != settings.model_sha256:
        screener.close()
        raise ExportError("a worker has another model file of this name: copy the model to it")
    _of_thread.settings, _of_thread.screener = settings, screener
    return screener


def text_of(name: str) -> str:
    """A path as the table can hold it: bytes that are no UTF-8 are written out."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def refused(name: str, reason: str, digest: str | None = None) -> dict[str, Any]:
    """The row of a picture without an answer."""
    return {"path": text_of(name), "sha256": digest, "reason": reason}


def row_of(screener: Screener, name: str, limits: Limits) -> dict[str, Any]:
    """The row of one picture; whatever is wrong with the picture ends up in ``reason``."""
    digest = None
    try:
        content = read_picture(name, limits)
        digest = sha256(content).hexdigest()
        found = screener.screen(content, int(digest[:SEED_DIGITS], 16))
    except ImageError as error:
        return refused(name, str(error), digest)
    except MemoryError:
        return refused(name, "not enough memory for it", digest)
    except (ModelError, ParamsError):
        raise  # not the picture's fault, and the same for all
    except Exception as error:  # one picture must not end a run over millions
        return refused(name, f"the program failed on it ({type(error).__name__}: {error})", digest)
    assert found.raw_probabilities is not None and found.purify is not None  # both views
    malignant = screener.classifier.manifest.malignant
    return {
        "path": text_of(name),
        "sha256": digest,
        "advice": found.advice.action,
        "rule": found.advice.rule,
        "label": found.label,
        "malignant": found.malignant,
        "malignant_raw": sum(found.raw_probabilities[label] for label in malignant),
        "malignant_in_usual_light": found.malignant_in_usual_light,
        "disagreement": found.disagreement,
        "failed_checks": [check["name"] for check in found.quality if not check["ok"]],
        "width": found.size[0],
        "height": found.size[1],
        "seed": found.purify["seed"],
        **{f"purified_{label}": value for label, value in found.probabilities.items()},
        **{f"raw_{label}": value for label, value in found.raw_probabilities.items()},
    }


def screen_batch(settings: Settings, names: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of some pictures, in their order; runs on a worker."""
    screener, limits = _screener(settings), Limits()
    return [row_of(screener, name, limits) for name in names]


def columns(labels: Sequence[str], settings: Settings) -> pa.Schema:
    """The table's columns. ``reason`` is null where there is an answer; all but path and hash are where there is none.

    ``malignant`` is the malignant share of the purified view, ``malignant_raw`` of the raw one, ``disagreement`` their
    Jensen-Shannon divergence in bits.
    """
    import pyarrow as pa

    share = pa.float32()
    fields = [
        ("position", pa.int64()),
        ("path", pa.string()),
        ("sha256", pa.string()),
        ("advice", pa.string()),
        ("reason", pa.string()),
        ("label", pa.string()),
        ("malignant", share),
        ("malignant_raw", share),
        ("malignant_in_usual_light", share),
        ("disagreement", share),
        ("rule", pa.string()),
        ("failed_checks", pa.list_(pa.string())),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("seed", pa.uint64()),
        *((f"{view}_{label}", share) for view in ("purified", "raw") for label in labels),
    ]
    about = {
        "model_sha256": settings.model_sha256,
        "preset": settings.preset,
        "edge_mdda": settings.version,
        "notice": NOTICE,
    }
    return pa.schema(fields, metadata=about)
