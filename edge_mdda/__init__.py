"""On-device skin-lesion screening that reverses small image perturbations before it classifies.

A referral aid, never a diagnosis. ``import edge_mdda`` is light: the parts load on first use.

Examples
--------
>>> from edge_mdda import Screener
>>> screener = Screener()                                  # doctest: +SKIP
>>> screener.screen("lesion.jpg").advice.action            # doctest: +SKIP
'routine'
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_mdda.silence import hush

hush()  # before any runtime is imported

__version__ = "0.1.0"

NOTICE = "A referral aid, never a diagnosis: a clinician decides."
"""Stands under every text that a user reads."""

_HOMES = {
    "Screener": "edge_mdda.screening",
    "Screening": "edge_mdda.screening",
    "Advice": "edge_mdda.triage",
    "Limits": "edge_mdda.files",
    "Manifest": "edge_mdda.classifier.manifest",
    "Purifier": "edge_mdda.mdda.purifier",
    "MddaParams": "edge_mdda.mdda.params",
    "EdgeMddaError": "edge_mdda.errors",
    "ImageError": "edge_mdda.errors",
    "ModelError": "edge_mdda.errors",
    "ParamsError": "edge_mdda.errors",
    "PRESETS": "edge_mdda.mdda.params",
    "decode": "edge_mdda.picture.decode",
    "read_bytes": "edge_mdda.files",
    "open_classifier": "edge_mdda.classifier",
}

__all__ = ["NOTICE", "__version__", *_HOMES]


if TYPE_CHECKING:  # a type checker sees every public name with its type, and no others
    from edge_mdda.classifier import open_classifier as open_classifier
    from edge_mdda.classifier.manifest import Manifest as Manifest
    from edge_mdda.errors import EdgeMddaError as EdgeMddaError
    from edge_mdda.errors import ImageError as ImageError
    from edge_mdda.errors import ModelError as ModelError
    from edge_mdda.errors import ParamsError as ParamsError
    from edge_mdda.files import Limits as Limits
    from edge_mdda.files import read_bytes as read_bytes
    from edge_mdda.mdda.params import PRESETS as PRESETS
    from edge_mdda.mdda.params import MddaParams as MddaParams
    from edge_mdda.mdda.purifier import Purifier as Purifier
    from edge_mdda.picture.decode import decode as decode
    from edge_mdda.screening import Screener as Screener
    from edge_mdda.screening import Screening as Screening
    from edge_mdda.triage import Advice as Advice
else:

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module 'edge_mdda' has no attribute '{name}'")
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
