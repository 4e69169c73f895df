"""``python -m export kernels``: every registered kernel as one shared library for one CPU, with its descriptor."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from edge_mdda import __version__
from edge_mdda.files import replace_file
from edge_mdda.mdda.kernels.native import ABI, Library, read_descriptor, source_hash
from export.native.codegen import Builder, portable_ir, required_features, target_of
from export.native.linker import link

TOOLS = ("llvmlite", "numba")


def build(cpu: str, out: Path) -> Library:
    """Compile, link and write ``kernels-<cpu>.json`` and the library that it names.

    Parameters
    ----------
    cpu : str
        LLVM's name, or ``host``.
    out : Path
        Folder; made if need be.

    Raises
    ------
    CodegenError, LinkError
        The CPU is unknown, or no linker is installed; nothing is written then.
    """
    from importlib.metadata import version

    target = target_of(cpu)
    library = link(Builder(target).object_code(), target.arch)
    digest = hashlib.sha256(library).hexdigest()
    descriptor = out / f"kernels-{target.cpu}.json"
    name = f"kernels-{target.cpu}-{digest[:12]}.so"
    content = {
        "library": name,
        "cpu": target.cpu,
        "arch": target.arch,
        "features": list(required_features(target)),
        "abi": ABI,
        "source_sha256": source_hash(),
        "sha256": digest,
        "kernels": {name: source["signature"] for name, source in portable_ir().items()},
        "made_by": {"edge_mdda": __version__, **{tool: version(tool) for tool in TOOLS}},
    }
    out.mkdir(parents=True, exist_ok=True)
    # The library's name has its hash, so that a kill between the two leaves the old pair whole.
    replace_file(str(out / name), library)
    replace_file(str(descriptor), (json.dumps(content, indent=2) + "\n").encode())
    for old in out.glob(f"kernels-{target.cpu}-{'?' * 12}.so"):
        if old.name != name:
            old.unlink()
    return read_descriptor(descriptor)
