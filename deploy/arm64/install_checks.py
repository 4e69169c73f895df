"""The bundle on the emulated board, installed as its user does it, with the network cut off."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

from deploy.arm64.bench import Bench
from deploy.arm64.errors import BenchError
from deploy.arm64.results import Result, judged

SHELL = "/bin/sh"
MEGABYTE = 10**6
MAX_INSTALLED = 260 * MEGABYTE
"""What a board's card is asked for."""


def install(bench: Bench) -> Iterator[Result]:
    """Unpack the archive, run its own ``install.sh``, and ask it what is installed."""
    archive, key = (Path(shutil.copy(path, bench.exchange)).name for path in (bench.bundle, bench.public_key))
    folder = _only_folder(bench.bundle)
    here = str(Path("/") / bench.exchange.relative_to(bench.board.root))
    done = bench.board.run(
        [SHELL, "-c", f"tar xf {archive} && exec sh {folder}/install.sh --pubkey {key}"], folder=here
    )
    if done.status:
        yield judged("install", False, "install.sh failed", done)
        return
    program = bench.board.run([SHELL, "-c", "command -v edge-mdda"])
    status = bench.board.run([SHELL, f"{here}/{folder}/install.sh", "status", "--json"])
    state = json.loads(status.stdout) if status.status == 0 else {}
    good = program.status == 0 and bool(state.get("current")) and state.get("confirmed") is True
    if good:
        bench.program = program.stdout.strip()
    yield judged("install", good, f"{bench.bundle.name}: {state.get('current')}, confirmed" if good
                 else "no confirmed release after install.sh", done if status.status == 0 else status)  # fmt: skip
    if good:
        yield _size(bench, state["prefix"])


def _size(bench: Bench, prefix: str) -> Result:
    place = bench.board.root / prefix.lstrip("/")
    size = sum(path.lstat().st_blocks * 512 for path in place.rglob("*") if not path.is_dir())
    text = f"{size / MEGABYTE:.0f} MB on the board's disk, at most {MAX_INSTALLED / MEGABYTE:.0f} wanted"
    return judged("installed size", size <= MAX_INSTALLED, text)


def _only_folder(archive: Path) -> str:
    """The bundle's top folder; its name is put into a shell's command, so it must be a plain one."""
    try:
        with tarfile.open(archive) as content:
            member = content.next()
    except (OSError, tarfile.TarError) as error:
        raise BenchError(f"{archive}: cannot be read as a bundle ({error})") from error
    name = Path(member.name).parts[0] if member else ""
    if not name.replace("-", "").replace(".", "").isalnum():
        raise BenchError(f"{archive}: holds no folder of a bundle")
    return name
