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

from typing import Any

from edge_mdda.silence import hush

hush()  # before any runtime is imported

__version__ = "0.1.0"

NOTICE = "A referral aid, never a diagnosis: a clinician decides."
"""Stands under every text that a user reads."""

_HOMES = {
    "Screener": "edge_mdda.screening",
    "Screening": "edge_mdda.screening",
    "Purifier": "edge_mdda.mdda.purifier",
    "MddaParams": "edge_mdda.mdda.params",
    "EdgeMddaError": "edge_mdda.errors",
    "ImageError": "edge_mdda.errors",
    "ModelError": "edge_mdda.errors",
    "ParamsError": "edge_mdda.errors",
    "PRESETS": "edge_mdda.mdda.params",
    "decode": "edge_mdda.picture.decode",
    "open_classifier": "edge_mdda.classifier",
}

__all__ = ["NOTICE", "__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'edge_mdda' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
