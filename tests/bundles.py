"""Bundles for the installer's tests: tiny ones, whose program answers and no more, and a real one for this machine."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

from deploy import bundle as bundles
from deploy.setup import SIGNER

ROOT = Path(__file__).resolve().parent.parent
PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
SEED, OTHER_SEED = b"\x01" * 32, b"\x02" * 32
EPOCH = 1_700_000_000  # seconds since 1970

PROGRAM = """\
import os, pathlib, sys
bad = pathlib.Path(os.environ["EDGE_MDDA_MODELS"], "bad.txt")
text = bad.read_text() if bad.exists() else ""
if sys.argv[1:2] == ["selftest"]:
    # Only the command that people use sets the threads: by that, failing after the switch can be told from before.
    sys.exit("selftest" in text or ("health" in text and "EDGE_MDDA_THREADS" in os.environ))
print("VERSION", os.environ.get("EDGE_MDDA_RUNTIME"))
"""


def _wheel(folder: Path, name: str, version: str, files: dict[str, bytes]) -> Path:
    """A wheel as the specification wants it, from contents."""
    about = f"{name}-{version}.dist-info"
    files = {
        **files,
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{about}/WHEEL": b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    lines = []
    for path, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
        lines.append(f"{path},sha256={digest},{len(content)}")
    record = "\n".join([*lines, f"{about}/RECORD,,"]) + "\n"
    target = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(target, "w") as archive:
        for path, content in {**files, f"{about}/RECORD": record.encode()}.items():
            archive.writestr(path, content)
    return target


def _installer_wheel(folder: Path) -> Path:
    """The installed package ``installer`` as an archive that Python can import from."""
    import installer

    home = Path(installer.__file__).parent
    files = {
        f"installer/{path.relative_to(home).as_posix()}": path.read_bytes()
        for path in sorted(home.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    return _wheel(folder, "installer", "1.0", files)


def tiny(
    folder: Path, version: str, bad: str = "", seed: bytes = SEED, units: tuple[str, ...] = (), **manifest: object
) -> Path:
    """A signed archive whose program prints its version; ``bad`` says what it fails: ``selftest`` or ``health``.

    Each of its ``units`` says where it was installed and by which version.
    """
    stage = folder / f"edge-mdda-{version}-tiny-here"
    for name in ("wheels", "models", "kernels"):
        (stage / name).mkdir(parents=True)
    code = PROGRAM.replace("VERSION", version).encode()
    own = _wheel(stage / "wheels", "edge_mdda", version, {"edge_mdda/__init__.py": b"", "edge_mdda/__main__.py": code})
    tool = _installer_wheel(stage / "wheels")
    (stage / "models" / "none.txt").write_text("tiny\n")
    if bad:
        (stage / "models" / "bad.txt").write_text(bad)
    (stage / "kernels" / "none.txt").write_text("tiny\n")
    for name in units:
        (stage / "units").mkdir(exist_ok=True)
        (stage / "units" / name).write_text(f"# {version}\n[Service]\nExecStart=/opt/edge-mdda/bin/edge-mdda watch\n")
    for name in bundles.INSTALLER:
        (stage / name).parent.mkdir(exist_ok=True)
        (stage / name).write_bytes((bundles.HERE / name).read_bytes())
    (stage / "config.env").write_text("# settings\nEDGE_MDDA_RUNTIME=tflite\nEDGE_MDDA_THREADS=1\n")
    content: dict[str, object] = {
        "format": 1,
        "version": version,
        "commit": "0" * 40,
        "board": "tiny",
        "board_title": "a test",
        "arch": os.uname().machine,
        "cpu": "none",
        "cpu_parts": [],
        "os": "here",
        "os_title": "its own system",
        "python": PYTHON,
        "glibc": "2.17",
        "runtimes": ["tflite"],
        "wheels": [{"file": own.name, "installed": True}, {"file": tool.name, "installed": False}],
        "trim": ["edge_mdda/**/tests"],
        "bundle_bytes": 10_000,
        "installed_bytes": 100_000,
    }
    (stage / "manifest.json").write_text(json.dumps({**content, **manifest}))
    return seal(stage, seed)


def seal(stage: Path, seed: bytes = SEED) -> Path:
    """Sign a staged folder and pack it beside itself."""
    bundles.sign_sums(stage, seed)
    archive = stage.parent / f"{stage.name}.tar.gz"
    archive.write_bytes(bundles.pack(stage, EPOCH))
    return archive


def public_key(folder: Path, seed: bytes = SEED) -> Path:
    """The public key file of a seed."""
    from nacl.signing import SigningKey

    path = folder / f"{seed[:1].hex()}-{SIGNER}"
    path.write_text(bytes(SigningKey(seed).verify_key).hex() + "\n")
    return path


class Place:
    """A prefix and the installer's calls on it."""

    def __init__(self, prefix: Path, shell: str = "sh") -> None:
        self.prefix, self.shell = prefix, shell

    def install_sh(self, *arguments: object, script: Path | None = None, **environment: str):
        """Run the repository's ``install.sh``, or another."""
        command = [*self.shell.split(), str(script or bundles.HERE / "install.sh"), *map(str, arguments)]
        command += ["--prefix", str(self.prefix), "--python", sys.executable]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("EDGE_MDDA_")}
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=900, check=False, env={**clean, **environment}
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def answer(self, *arguments: str) -> str:
        """What the installed command prints; the tiny program prints its version."""
        done = subprocess.run(
            [str(self.prefix / "bin/edge-mdda"), *(arguments or ("version",))],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def status(self) -> dict:
        """``status --json``."""
        return json.loads(self.install_sh("status", "--json").stdout)

    def leftovers(self) -> list[str]:
        """What an interrupted installation leaves behind and the next one has to remove."""
        names = [path.name for path in (self.prefix / "releases").iterdir() if path.name.startswith(".")]
        return names + [path.name for path in self.prefix.iterdir() if path.name == "pending" or path.suffix == ".new"]


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """The single line of a refusal."""
    assert done.returncode == 1, (done.returncode, done.stdout, done.stderr)
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("edge-mdda: "), done.stderr
    return lines[0]
