"""``python -m deploy bundle``: one signed archive with all that a board needs, the same bytes each time it is made."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy import sbom
from deploy.errors import DeployError
from deploy.kernel_cache import add_kernels
from deploy.lock import LOCKS, Pin, lock_path, read_lock
from deploy.profiles import Board, System
from deploy.setup import FIRST, MAX_KEYS, MAX_NUMBER, SIGNATURE, SIGNER, SUMS, BundleError, read_keys, signed_text
from deploy.wheels import ROOT, build_own, cache_folder, fetch, unpacked_bytes
from edge_mdda import NOTICE, __version__
from edge_mdda.classifier import RUNTIMES
from edge_mdda.classifier.manifest import manifest_path, read_manifest, read_signature, read_verified
from edge_mdda.classifier.signature import require_trusted, sign, signature_path
from edge_mdda.files import replace_file

FORMAT = 1
HERE = Path(__file__).parent
INSTALLER = (
    "install.sh",
    "setup/commands.sh",
    "setup/ed25519.py",
    "setup/helper.py",
    "setup/standing.py",
    "setup/units.sh",
    "setup/unpack.py",
)
OLDEST_EPOCH = 315532800  # 1980-01-01, before which zip and tar tools have no time
DAY = 86_400  # seconds
COMPRESSION = 6  # of gzip; the wheels are compressed already
SYSTEM_BYTES = 4_000_000  # of the environment itself and of folders, beside what the wheels hold


@dataclass(frozen=True)
class Request:
    """What to make.

    Attributes
    ----------
    board, system : Board, System
        For which board.
    key : Path
        Private key of ``python -m export keygen``.
    models : tuple of Path
        Models with their manifests, one for a runtime; empty: the built-in ones that the board's runtimes run.
    locks, cache : Path, optional
        Folder of the lock files, and of downloaded wheels and compiled kernels.
    hardened, broad : bool
        Pack the built-in model of that name too, for each of the board's runtimes.
    release : int, optional
        Release number; a board refuses a smaller one than it has had. None: the time of the source, in seconds, so that
        a bundle of later source has a higher one and the same source gives the same bytes.
    valid_days : int, optional
        For how long after the time of the source it may be installed; None: for good.
    trust, revoke : tuple of Path
        Files of public keys that boards trust, or never trust again, once this release is in force.
    """

    board: Board
    system: System
    key: Path
    models: tuple[Path, ...] = ()
    locks: Path = LOCKS
    cache: Path | None = None
    hardened: bool = False
    broad: bool = False
    release: int | None = None
    valid_days: int | None = None
    trust: tuple[Path, ...] = ()
    revoke: tuple[Path, ...] = ()


def bundle_name(board: Board, system: System) -> str:
    """``edge-mdda-0.1.0-rpi4-bookworm``: the archive's name and its one folder."""
    return f"edge-mdda-{__version__}-{board.name}-{system.name}"


def make(request: Request, out: Path) -> Path:
    """Make the archive; nothing is written to ``out`` before all of it is there.

    Raises
    ------
    EdgeMddaError
        A wheel, model, key or linker is missing; one line that says which, and the board.
    """
    from export.signing import read_key

    try:
        seed = read_key(request.key)
    except OSError as error:
        raise DeployError(
            f"{request.key}: cannot read the signing key ({error.strerror}); make one with: python -m export keygen"
        ) from error
    board, system = request.board, request.system
    pins = read_lock(lock_path(system, board.arch, request.locks))
    epoch, commit = source_state()
    standing = standing_of(request, epoch, seed)
    with tempfile.TemporaryDirectory(prefix="edge-mdda-bundle-") as scratch:
        stage = Path(scratch) / bundle_name(board, system)
        stage.mkdir()
        cache = request.cache or cache_folder()
        wheels = _add_wheels(stage, request, pins, cache, epoch)
        libraries = [add_kernels(stage / "kernels", board, cache / "kernels")]
        models = _add_models(stage, request, seed)
        _add_installer(stage, board)
        manifest = {**_manifest(request, commit, epoch, stage, pins, wheels, models), **standing}
        (stage / "sbom.cdx.json").write_bytes(sbom.make(manifest, wheels, [*models, *libraries], epoch))
        (stage / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        sign_sums(stage, seed)
        content = pack(stage, epoch)
    out.mkdir(parents=True, exist_ok=True)
    archive = out / f"{bundle_name(board, system)}.tar.gz"
    replace_file(str(archive), content)
    return archive


def source_state(root: Path = ROOT) -> tuple[int, str]:
    """Time (``SOURCE_DATE_EPOCH``, else the last commit's) and commit; ``-modified`` where files differ from it."""
    commit = _git(root, "rev-parse", "HEAD")
    if commit and _git(root, "status", "--porcelain", "--untracked-files=no"):
        commit += "-modified"
    text = os.environ.get("SOURCE_DATE_EPOCH") or _git(root, "log", "-1", "--format=%ct") or str(OLDEST_EPOCH)
    try:
        return max(int(text), OLDEST_EPOCH), commit or "unknown"
    except ValueError:
        raise DeployError(f"SOURCE_DATE_EPOCH must be a whole number of seconds, not {text!r}") from None


def standing_of(request: Request, epoch: int, seed: bytes) -> dict[str, Any]:
    """What the manifest says of number, end of validity and keys, as ``setup/standing.py`` reads it."""
    from nacl.signing import SigningKey

    number = epoch if request.release is None else request.release
    if not 0 <= number <= MAX_NUMBER:
        raise DeployError(f"the release number must be from 0 to {MAX_NUMBER}, not {number}")
    found: dict[str, Any] = {"release": number}
    if request.valid_days is not None:
        until = epoch + request.valid_days * DAY
        if until < time.time():
            raise DeployError(
                f"it would be valid until {sbom.time_text(until)} only, counted from the time of its source: "
                "give --valid-days a higher number"
            )
        found["expires"] = sbom.time_text(until)
    try:
        add, revoke = ([key.hex() for path in paths for key in read_keys(str(path))] for paths in
                       (request.trust, request.revoke))  # fmt: skip
    except BundleError as error:
        raise DeployError(str(error)) from None
    if bytes(SigningKey(seed).verify_key).hex() in revoke or set(add) & set(revoke):
        raise DeployError("a bundle cannot revoke a key that it is signed with or adds: sign it with the new key")
    if max(len(add), len(revoke)) > MAX_KEYS:
        raise DeployError(f"one bundle adds or revokes {MAX_KEYS} keys at most")
    if add or revoke:
        found["trust"] = {"add": add, "revoke": revoke}
    return found


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
    except OSError:  # a source archive on a machine without git
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _add_wheels(stage: Path, request: Request, pins: Sequence[Pin], cache: Path, epoch: int) -> list[Path]:
    folder = stage / "wheels"
    folder.mkdir()
    found = [Path(shutil.copy(path, folder)) for path in fetch(pins, request.board, request.system, cache)]
    return sorted([*found, build_own(folder, epoch)])


def _add_models(stage: Path, request: Request, seed: bytes) -> list[Path]:
    """Models, manifests, what their manifests name, signatures and golden values."""
    from nacl.signing import SigningKey

    folder = stage / "models"
    folder.mkdir()
    public = bytes(SigningKey(seed).verify_key).hex()
    found = []
    for model in _chosen_models(request):
        _, described = read_verified(model, manifest_path(model))
        written, _ = read_manifest(manifest_path(model))
        signature = read_signature(model)
        if signature is None:
            signature = sign(written, seed).encode()
        else:  # signed before, by hand: it must be with the key that the boards are going to trust
            require_trusted(written, signature, model, frozenset([public]))
        for name in (model.name, manifest_path(model).name, *described.files):
            shutil.copy(model.with_name(name), folder / name)
        signature_path(folder / model.name).write_bytes(signature)
        found.append(folder / model.name)
    _add_golden(folder, found, request)
    return found


def _chosen_models(request: Request) -> list[Path]:
    from edge_mdda.classifier import built_in

    wanted = {RUNTIMES[name]: name for name in request.board.runtimes}
    models = list(request.models) or [built_in(name) for name in request.board.runtimes]
    suffixes = [model.suffix.lower() for model in models]
    for model, suffix in zip(models, suffixes, strict=True):
        if suffix not in wanted:
            raise DeployError(f"{model}: board {request.board.name} runs {' and '.join(wanted)} files")
        if suffixes.count(suffix) > 1:
            raise DeployError(f"{model}: only one {suffix} model fits into a bundle")
    missing = sorted(set(wanted) - set(suffixes))
    if missing:  # the installer's self-test asks every runtime of the board
        raise DeployError(
            f"board {request.board.name} runs {' and '.join(wanted)} files: name one {missing[0]} model too"
        )
    # Beside the others: the names of built-in models cannot be taken for one another.
    for name in (name for name, wanted in (("hardened", request.hardened), ("broad", request.broad)) if wanted):
        models += [built_in(runtime, name) for runtime in request.board.runtimes]
    return models


def _add_golden(folder: Path, models: Sequence[Path], request: Request) -> None:
    """The golden values that lie beside the built-in models, or new ones for others."""
    from edge_mdda.diagnostics.selftest import GOLDEN, read_golden, record

    if request.models:
        record(folder, models)
        return
    beside = ROOT / "edge_mdda" / "models"
    golden = read_golden(beside)
    for model in models:
        if hashlib.sha256(model.read_bytes()).hexdigest() not in golden["models"]:
            raise DeployError(f"{beside / GOLDEN}: knows no {model.name}; run: edge-mdda selftest --record {beside}")
    for name in (GOLDEN, *golden["pictures"]):
        shutil.copy(beside / name, folder / name)


def _add_installer(stage: Path, board: Board) -> None:
    for name in INSTALLER:
        target = stage / name
        target.parent.mkdir(exist_ok=True)
        shutil.copy(HERE / name, target)
    (stage / "config.env").write_text(settings(board), encoding="utf-8")
    units = HERE / "units"
    if units.is_dir():
        shutil.copytree(units, stage / "units", ignore=shutil.ignore_patterns("__pycache__"))


def settings(board: Board) -> str:
    """The board's settings, for the wrapper and for units (``EnvironmentFile``)."""
    return (
        f"# Settings for {board.title}. An environment variable or an option goes before what stands here.\n"
        "# Runtime: tflite or onnx. Preset: mild, balanced or strong. Updates leave this file as it is.\n"
        f"EDGE_MDDA_RUNTIME={board.runtimes[0]}\n"
        f"EDGE_MDDA_THREADS={board.threads}\n"
        f"EDGE_MDDA_PRESET={board.preset}\n"
    )


def _trim_patterns() -> list[str]:
    lines = (HERE / "trim.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def _manifest(
    request: Request,
    commit: str,
    epoch: int,
    stage: Path,
    pins: Sequence[Pin],
    wheels: Sequence[Path],
    models: Sequence[Path],
) -> dict[str, Any]:
    board, system, trim = request.board, request.system, _trim_patterns()
    tools = {pin.sha256 for pin in pins if not pin.installed}
    kinds = {path: hashlib.sha256(path.read_bytes()).hexdigest() not in tools for path in wheels}
    here = [path for path in stage.rglob("*") if path.is_file()]
    return {
        "format": FORMAT,
        "name": "edge-mdda",
        "version": __version__,
        "commit": commit,
        "made": sbom.time_text(epoch),
        "board": board.name,
        "board_title": board.title,
        "arch": board.arch,
        "cpu": board.cpu,
        "cpu_parts": list(board.cpu_parts),
        "os": system.name,
        "os_title": system.title,
        "python": system.python,
        "glibc": system.glibc,
        "runtimes": list(board.runtimes),
        "memory_mb": board.memory_mb,
        "cores": board.cores,
        "threads": board.threads,
        "preset": board.preset,
        "sensors": board.sensors,
        "models": [path.name for path in models],
        "wheels": [{"file": path.name, "installed": installed} for path, installed in kinds.items()],
        "trim": trim,
        "bundle_bytes": sum(path.stat().st_size for path in here),
        "installed_bytes": sum(unpacked_bytes(path, trim) for path, installed in kinds.items() if installed)
        + sum(path.stat().st_size for path in here if "wheels" not in path.relative_to(stage).parts)
        + SYSTEM_BYTES,
        "notice": NOTICE,
    }


def sign_sums(stage: Path, seed: bytes) -> None:
    """``signer.pub``, ``SHA256SUMS`` over every file, and its signature."""
    from nacl.signing import SigningKey

    key = SigningKey(seed)
    (stage / SIGNER).write_text(bytes(key.verify_key).hex() + "\n")
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(stage).as_posix()}\n"
        for path in sorted(stage.rglob("*"))
        if path.is_file()
    ]
    text = "".join(lines).encode()
    (stage / SUMS).write_bytes(text)
    (stage / SIGNATURE).write_bytes(key.sign(signed_text(text)).signature)


def pack(stage: Path, epoch: int) -> bytes:
    """A ``.tar.gz`` whose bytes depend on names and contents only; what decides about the rest comes first."""
    names = sorted(path.relative_to(stage).as_posix() for path in stage.rglob("*") if path.is_file())
    names = [*FIRST, *(name for name in names if name not in FIRST)]
    target = io.BytesIO()
    with (
        gzip.GzipFile(filename="", fileobj=target, mode="wb", compresslevel=COMPRESSION, mtime=0) as plain,
        tarfile.open(fileobj=plain, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for name in names:
            path = stage / name
            info = tarfile.TarInfo(f"{stage.name}/{name}")
            info.size, info.mtime = path.stat().st_size, epoch
            info.mode = 0o755 if path.suffix == ".sh" else 0o644
            with path.open("rb") as file:
                archive.addfile(info, file)
    return target.getvalue()
