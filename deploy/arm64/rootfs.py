"""A small Debian for ARM64 in a folder, from signed packages, without debootstrap and without being root.

``apt-get`` with a state of its own works out and downloads every essential package and the board's Python;
``dpkg-deb`` unpacks them.  No maintainer script runs: what those few that matter would do is done here.  The root
stays in the cache; each test gets a copy.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from deploy.arm64.errors import BenchError, UnavailableError
from deploy.wheels import cache_folder

RECIPE = 1
"""Raise it when a root that is made from the same packages would look different."""

TOOLS = {"apt-get": "apt", "dpkg-deb": "dpkg", "tar": "tar"}
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
MERGED = ("bin", "lib", "sbin")
"""Links to the same under /usr: they must be there before the first package."""

FOLDERS = ("dev", "proc", "run", "sys", "tmp", "root", "home", "etc")
LEFT_OUT = ("./usr/share/doc", "./usr/share/man", "./usr/share/locale", "./usr/share/info", "./usr/share/lintian")
BUILD_TIMEOUT_S = 900


def wanted_packages(python: str) -> list[str]:
    """What a root holds beyond its dependencies: the least that a Debian with Python has (an apt pattern), no pip."""
    return ["?essential", f"python{python}", "python3"]


def prepared(codename: str, python: str, mirror: str | None = None, fresh: bool = False) -> Path:
    """The root of a Debian release, from the cache or built now.

    Parameters
    ----------
    codename : str
        ``bookworm``, ``trixie``.
    python : str
        ``3.11``: the version that this release has.
    mirror : str, optional
        URL of a Debian archive. Default: the one in this machine's own package sources.
    fresh : bool
        Build it again even if the cache has it.

    Returns
    -------
    Path
        A folder not to be changed; ``packages.json`` beside it lists name and version of what is in it.

    Raises
    ------
    UnavailableError
        A tool or the package source is missing, or the packages cannot be downloaded.
    BenchError
        A package cannot be unpacked.
    """
    recipe = json.dumps([RECIPE, codename, wanted_packages(python), LEFT_OUT, FOLDERS])
    place = cache_folder() / "arm64" / f"{codename}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    place.parent.mkdir(parents=True, exist_ok=True)
    with _locked(place.with_suffix(".lock")):
        if place.is_dir() and not fresh:
            return place / "root"
        with tempfile.TemporaryDirectory(dir=place.parent, prefix=".building-") as name:
            building = Path(name) / "done"
            building.mkdir()
            archives = _download(Path(name), codename, python, mirror or _own_mirror())
            _unpack(archives, building / "root")
            _finish(building / "root")
            (building / "packages.json").write_text(json.dumps(_names_and_versions(archives), indent=1) + "\n")
            if place.is_dir():
                shutil.rmtree(place)
            building.rename(place)
    return place / "root"


def packages_of(root: Path) -> dict[str, str]:
    """Version of every package in a root from :func:`prepared`."""
    found: dict[str, str] = json.loads((root.parent / "packages.json").read_text())
    return found


@contextlib.contextmanager
def copy_of(root: Path) -> Iterator[Path]:
    """A copy to install into; it is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="edge-mdda-arm64-") as name:
        target = Path(name) / "root"
        _run(["cp", "--archive", "--reflink=auto", str(root), str(target)], "copy the root")
        yield target


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Two tests that start together build one root."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _own_mirror() -> str:
    """The Debian archive in this machine's package sources."""
    _require_tools()
    text = _run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages"],
        "read this machine's package sources",
    )
    release = re.search(r"^VERSION_CODENAME=(\w+)", Path("/etc/os-release").read_text(), re.MULTILINE)
    debian = re.search(r"^ID=\"?debian\"?$", Path("/etc/os-release").read_text(), re.MULTILINE)
    for line in text.splitlines():
        uri, name, component = line.split()
        if debian and release and name == release[1] and component == "main":
            return uri
    raise UnavailableError("this machine's package sources name no Debian archive: name one with --mirror URL")


def _require_tools() -> None:
    for tool, package in TOOLS.items():
        if not shutil.which(tool):
            raise UnavailableError(f"no {tool} here: install {package}, or use a Debian machine")
    if not KEYRING.is_file():
        raise UnavailableError(f"no {KEYRING} here: install debian-archive-keyring")


def _download(folder: Path, codename: str, python: str, mirror: str) -> list[Path]:
    _require_tools()
    for name in ("state/lists/partial", "cache/archives/partial", "nothing"):
        (folder / name).mkdir(parents=True)
    (folder / "state/status").touch()
    (folder / "sources.list").write_text(f"deb [signed-by={KEYRING}] {mirror} {codename} main\n")
    settings = folder / "apt.conf"
    settings.write_text(_SETTINGS.format(folder=folder))
    environment = {**os.environ, "APT_CONFIG": str(settings), "LC_ALL": "C"}
    for command in (["update", "--error-on=any"], ["install", "--download-only", "--yes", *wanted_packages(python)]):
        try:
            _run(["apt-get", "-qq", *command], f"download Debian {codename}", environment)
        except BenchError as error:
            raise UnavailableError(str(error)) from error
    return sorted((folder / "cache/archives").glob("*.deb"))


_SETTINGS = """\
#clear APT::Architectures;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Post-Invoke;
APT::Architecture "arm64";
APT::Architectures {{ "arm64"; }};
APT::Install-Recommends "false";
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::Retries "3";
Dir::State "{folder}/state";
Dir::State::status "{folder}/state/status";
Dir::Cache "{folder}/cache";
Dir::Log "{folder}/cache";
Dir::Etc::sourcelist "{folder}/sources.list";
Dir::Etc::sourceparts "{folder}/nothing";
Dir::Etc::preferences "{folder}/nothing/preferences";
Dir::Etc::preferencesparts "{folder}/nothing";
"""
"""A state of its own; the machine's other settings (a proxy, a certificate) stay."""


def _unpack(archives: list[Path], root: Path) -> None:
    for name in (*FOLDERS, *(f"usr/{name}" for name in MERGED)):
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in MERGED:
        (root / name).symlink_to(f"usr/{name}")
    excluded = [f"--exclude={name}/*" for name in LEFT_OUT]
    for archive in archives:
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(archive)], stdout=subprocess.PIPE) as source:
            tar = ["tar", "--extract", "--keep-directory-symlink", f"--directory={root}", *excluded]
            done = subprocess.run(tar, stdin=source.stdout, stderr=subprocess.PIPE, text=True, check=False)
            assert source.stdout is not None
            source.stdout.close()
        if source.returncode or done.returncode:
            last = (done.stderr.strip().splitlines() or ["dpkg-deb failed"])[-1]
            raise BenchError(f"cannot unpack {archive.name}: {last}")


def _finish(root: Path) -> None:
    """What the maintainer scripts of base-passwd and mawk would have done."""
    for name in ("passwd", "group"):
        shutil.copy(root / f"usr/share/base-passwd/{name}.master", root / "etc" / name)
    if not (root / "usr/bin/awk").exists():
        (root / "usr/bin/awk").symlink_to("mawk")
    (root / "etc/hostname").write_text("board\n")
    (root / "etc/hosts").write_text("127.0.0.1 localhost board\n")
    (root / "tmp").chmod(0o1777)


def _names_and_versions(archives: list[Path]) -> dict[str, str]:
    parts = (archive.stem.split("_") for archive in archives)
    return {name: version.replace("%3a", ":") for name, version, _ in parts}


def _run(command: list[str], purpose: str, environment: dict[str, str] | None = None) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=BUILD_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BenchError(f"cannot {purpose}: {error}") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise BenchError(f"cannot {purpose}: {last}")
    return done.stdout
