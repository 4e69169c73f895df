"""``python -m deploy lock``: which wheels a board gets, by version and SHA-256; read again when a bundle is made.

pip's ``--platform`` chooses wheels for a board but evaluates the packages' environment markers for this machine. So the
packages are listed here one by one and resolved without their dependencies; each dependency that they declare
for the board must then be in the list, or be left out here with a reason.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from deploy.errors import DeployError
from deploy.profiles import System, platform_tags
from edge_mdda.files import replace_file

LOCKS = Path(__file__).parent / "locks"

PACKAGES = (
    "numpy>=2,<3",
    "opencv-python-headless>=5,<6",
    "ai-edge-litert>=2,<3",
    "onnxruntime>=1.23,<2",
    "pynacl>=1.5,<2",
    "cffi>=1.17,<3",
    "installer>=0.7,<2",
)
"""All that a board gets, with ``edge-mdda`` itself. ``pynacl`` (with cffi's C part) checks the models' signatures each
time that one is opened; ``installer`` unpacks the wheels and stays in the bundle."""

NOT_INSTALLED = ("installer",)

LEFT_OUT = {
    "backports-strenum": "ai-edge-litert: not imported by its interpreter",
    "coloredlogs": "onnxruntime for Python 3.10: only its tools log with it",
    "flatbuffers": "ai-edge-litert, onnxruntime: for writing models and in tools",
    "ml-dtypes": "ai-edge-litert: for types that no model here has",
    "packaging": "onnxruntime: only its tools compare versions",
    "protobuf": "ai-edge-litert, onnxruntime: for tools and a compiled-in copy runs the models",
    "pycparser": "cffi: PyNaCl's module was compiled before, nothing is parsed",
    "sympy": "onnxruntime for Python 3.10: only its tools infer shapes with it",
    "tqdm": "ai-edge-litert: bars of its tools",
    "typing-extensions": "ai-edge-litert: for its tools",
    "numba": "the board has native kernels",
}
"""Dependencies that the packages declare and that screening never imports. The installer's self-test runs both runtimes
without them on every board, and so do the tests."""

FOR_OLDER_SYSTEMS = {"opencv-python-headless": "2.17"}
"""Packages whose wheel for an older C library is taken: OpenCV's is 3 MB smaller, and a bundle has 100 MB."""

LINE = re.compile(
    r"(?P<name>[a-z0-9][a-z0-9-]*)==(?P<version>[^\s;]+) "
    r"--hash=sha256:(?P<sha256>[0-9a-f]{64})(?:\s+#\s*(?P<file>\S+))?"
)


@dataclass(frozen=True)
class Pin:
    """One wheel of a lock file."""

    name: str
    version: str
    sha256: str
    file: str

    @property
    def installed(self) -> bool:
        """Whether it is unpacked on the board; a tool of the installer is not."""
        return self.name not in NOT_INSTALLED

    def to_line(self) -> str:
        """A line of pip's requirements format."""
        return f"{self.name}=={self.version} --hash=sha256:{self.sha256}  # {self.file}"


def lock_path(system: System, arch: str, folder: Path = LOCKS) -> Path:
    """``locks/bookworm-3.11-aarch64.txt``."""
    return folder / f"{system.name}-{system.python}-{arch}.txt"


def canonical_name(name: str) -> str:
    """``ml_dtypes`` and ``ML.Dtypes`` are ``ml-dtypes`` (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def target_options(system: System, arch: str) -> list[str]:
    """pip's options for wheels that run there."""
    options = ["--only-binary=:all:", "--implementation", "cp", "--python-version", system.python]
    for tag in platform_tags(system, arch):
        options += ["--platform", tag]
    return options


def resolve(system: System, arch: str, packages: Sequence[str] = PACKAGES) -> list[Pin]:
    """Ask the package index for the newest wheels that run on a system.

    Raises
    ------
    DeployError
        No wheel exists, no index can be reached, or a dependency is neither in the list nor left out with a reason.
    """
    groups: dict[str, list[str]] = {}
    for package in packages:
        name = canonical_name(re.split(r"[^A-Za-z0-9._-]", package)[0])
        groups.setdefault(FOR_OLDER_SYSTEMS.get(name, system.glibc), []).append(package)
    found = []
    for glibc, group in groups.items():
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.json"
            options = ["--dry-run", "--no-deps", "--ignore-installed", "--target", folder, "--report", str(report)]
            options += target_options(replace(system, glibc=glibc), arch)
            run_pip(["install", *options, *group], f"{system.name}, Python {system.python}, {arch}")
            found += json.loads(report.read_bytes())["install"]
    pins = []
    for item in found:
        meta, info = item["metadata"], item["download_info"]
        file = info["url"].rsplit("/", 1)[-1]
        name = canonical_name(meta["name"])
        pins.append(Pin(name, meta["version"], info["archive_info"]["hashes"]["sha256"], file))
        _require_known(name, meta.get("requires_dist") or [], system, arch, packages)
    return sorted(pins, key=lambda pin: pin.name)


def _require_known(name: str, requires: Sequence[str], system: System, arch: str, packages: Sequence[str]) -> None:
    """Every dependency that holds on the board is in the list or left out."""
    from packaging.requirements import Requirement

    board = {
        "platform_machine": arch,
        "python_version": system.python,
        "python_full_version": f"{system.python}.0",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "os_name": "posix",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "extra": "",
    }
    known = {canonical_name(re.split(r"[^A-Za-z0-9._-]", package)[0]) for package in packages} | set(LEFT_OUT)
    for text in requires:
        requirement = Requirement(text)
        wanted = requirement.marker is None or requirement.marker.evaluate(board)
        if wanted and canonical_name(requirement.name) not in known:
            raise DeployError(f"{name} now needs {requirement.name}: add it to PACKAGES or LEFT_OUT in deploy/lock.py")


def run_pip(arguments: Sequence[str], subject: str) -> None:
    """pip of this environment; DeployError with its own last word, which names the missing wheel."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]
    # The umask decides about the modes of files inside a wheel that is built, and so about its bytes.
    done = subprocess.run(command, capture_output=True, text=True, check=False, umask=0o022)
    if done.returncode:
        lines = [line.removeprefix("ERROR: ") for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
        cause = next((line for line in lines if line.startswith("No matching")), lines[-1] if lines else "pip failed")
        raise DeployError(f"{subject}: {re.sub(r'https?://[^ ]*', '(the index)', cause)}")


def to_text(pins: Sequence[Pin], system: System, arch: str) -> str:
    """The lock file."""
    head = [
        f"# Wheels for {system.title}, Python {system.python}, {arch}: made by python -m deploy lock, not by hand.",
        "# Installed without dependencies. Declared by these packages but never imported by a screening, so left out:",
        *(f"#   {name}: {reason}" for name, reason in sorted(LEFT_OUT.items())),
        "# Stays in the bundle: installer, which unpacks the others.",
    ]
    return "\n".join([*head, *(pin.to_line() for pin in pins)]) + "\n"


def write_lock(system: System, arch: str, folder: Path = LOCKS) -> Path:
    """Resolve and write; returns the file."""
    path = lock_path(system, arch, folder)
    text = to_text(resolve(system, arch), system, arch)
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(str(path), text.encode())
    return path


def read_lock(path: Path) -> list[Pin]:
    """The pins of a lock file.

    Raises
    ------
    DeployError
        It is missing, or a line is not a version with a hash.
    """
    try:
        text = path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        cause = getattr(error, "strerror", None) or error
        raise DeployError(
            f"{path}: cannot read the lock file ({cause}); make it with: python -m deploy lock"
        ) from error
    pins = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        match: Any = LINE.fullmatch(line.strip())
        if not match:
            raise DeployError(f"{path}:{number}: expected name==version --hash=sha256:..., got {line[:60]!r}")
        pins.append(Pin(match["name"], match["version"], match["sha256"], match["file"] or ""))
    if not pins:
        raise DeployError(f"{path}: names no wheel; make it with: python -m deploy lock")
    return pins
