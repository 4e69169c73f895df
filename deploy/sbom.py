"""The bill of materials of a bundle in CycloneDX 1.5 JSON; the same for the same content.

By hand, because it is one dictionary: the library of the standard adds eight packages to the workstation. The tests use
it, and validate what stands here against its schema.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from deploy.lock import canonical_name
from deploy.wheels import describe

SPEC_VERSION = "1.5"
NAMESPACE = uuid.UUID("5c3f7f0e-2f0a-4b7a-9a53-0d3f5b6a7c11")  # made up once, for serial numbers of these lists


def time_text(epoch: int) -> str:
    """``2026-01-31T12:00:00Z``."""
    return datetime.fromtimestamp(epoch, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def make(manifest: dict[str, Any], wheels: Sequence[Path], others: Sequence[Path], epoch: int) -> bytes:
    """The list for a bundle.

    Parameters
    ----------
    manifest : dict
        The bundle's manifest.
    wheels : sequence of Path
        All wheels, our own among them.
    others : sequence of Path
        Models and kernels.
    epoch : int
        Seconds since 1970 that stand as the time of making.
    """
    components = [_wheel(path) for path in wheels] + [_file(path) for path in others]
    components.sort(key=lambda component: str(component["bom-ref"]))
    content: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": SPEC_VERSION,
        "version": 1,
        "metadata": {
            "timestamp": time_text(epoch),
            "component": {
                "type": "firmware",
                "bom-ref": "bundle",
                "name": f"edge-mdda-{manifest['board']}-{manifest['os']}",
                "version": manifest["version"],
                "licenses": [{"license": {"id": "Apache-2.0"}}],
            },
        },
        "components": components,
        "dependencies": [{"ref": "bundle", "dependsOn": [component["bom-ref"] for component in components]}],
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    content["serialNumber"] = f"urn:uuid:{uuid.uuid5(NAMESPACE, digest)}"
    return (json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _hashes(path: Path) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": hashlib.sha256(path.read_bytes()).hexdigest()}]


def _wheel(path: Path) -> dict[str, Any]:
    about = describe(path)
    name = canonical_name(about["name"])
    purl = f"pkg:pypi/{name}@{about['version']}?file_name={path.name}"
    found: dict[str, Any] = {
        "type": "library",
        "bom-ref": purl,
        "name": about["name"],
        "version": about["version"],
        "purl": purl,
        "hashes": _hashes(path),
    }
    if about["expression"]:
        found["licenses"] = [{"expression": about["expression"]}]
    elif about["licence"]:
        found["licenses"] = [{"license": {"name": about["licence"]}}]
    return found


def _file(path: Path) -> dict[str, Any]:
    model = path.suffix in (".onnx", ".tflite")
    found: dict[str, Any] = {
        "type": "machine-learning-model" if model else "library",
        "bom-ref": f"file:{path.name}",
        "name": path.name,
        "hashes": _hashes(path),
    }
    if model:
        about = json.loads(path.with_name(f"{path.name}.json").read_bytes())
        found["version"] = str(about["version"])
        found["licenses"] = [{"license": {"name": str(about["licence"])}}]
    else:
        found["licenses"] = [{"license": {"id": "Apache-2.0"}}]  # our own kernels
    return found
