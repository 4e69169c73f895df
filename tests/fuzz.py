"""``python -m tests.fuzz --minutes M``: drawn damage to everything that is read, until the time is over.

Hypothesis draws which seed is taken and what is done to it: bytes exchanged, cut, doubled or put in, numbers at their
limits, JSON values of wrong kinds. The seeds are small and made here (pictures of every format, a bundle, a manifest).
Each round runs in a child with bounded memory and time, and writes down what it is about to try, so that a crash of a
decoder or a hang leaves its input behind. A finding is kept in the folder ``--keep``, and the exit status is 1.

What this does not see: a wrong answer without an error, and code that only a signed input reaches.

With Hypothesis rather than Atheris: what can crash here are decoders in C, whose code Atheris does not see either.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import gzip
import hashlib
import io
import json
import mmap
import os
import resource
import struct
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

MEMORY = 2 << 30  # bytes of address space of a child
ROUND_EXAMPLES = 200  # inputs of one child
HANG_S = 20.0  # one input may take so long; the slowest real one takes half a second
MAX_INPUT = 1 << 20  # bytes
OK, FOUND, HUNG = 0, 1, 3
EDGES = [
    b"",
    b"\0",
    b"\xff" * 4,
    b"\x7f\xff\xff\xff",
    b"\x80\0\0\0",
    b"\xff" * 8,
    b"../",
    b"\r\n",
    b"NaN",
    b"-1",
    b"1e999",
]
VALUES: list[Any] = [
    None,
    True,
    -1,
    0,
    2**31,
    2**63,
    10**40,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "../x",
    "\x1b[2J",
    [],
    {},
]


# -- damage ---------------------------------------------------------------------------------------------------


@st.composite
def damaged(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """One of the seeds after up to six changes."""
    content = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(content)))
        if draw(st.booleans()):
            at = min(at, 64)  # headers decide most
        kind = draw(st.sampled_from(("flip", "edge", "cut", "drop", "double", "number", "noise")))
        if kind == "flip" and at < len(content):
            content[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "edge":
            edge = draw(st.sampled_from(EDGES))
            content[at : at + len(edge)] = edge
        elif kind == "cut":
            del content[at:]
        elif kind == "drop":
            del content[at : at + draw(st.integers(1, 64))]
        elif kind == "double":
            content[at:at] = content[at : at + draw(st.integers(1, 256))]
        elif kind == "number":
            order = draw(st.sampled_from("<>"))
            content[at : at + 4] = struct.pack(order + "I", draw(st.integers(0, 2**32 - 1)))
        else:
            content[at:at] = draw(st.binary(max_size=64))
    return bytes(content[:MAX_INPUT])


@st.composite
def damaged_json(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """JSON with values exchanged, or damaged as bytes."""
    if draw(st.booleans()):
        return draw(damaged(seeds))
    content = json.loads(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 4))):
        place, keys = content, list(content) if isinstance(content, dict) else list(range(len(content)))
        while keys:
            key = draw(st.sampled_from(keys))
            below = place[key]
            if isinstance(below, (dict, list)) and below and draw(st.booleans()):
                place, keys = below, list(below) if isinstance(below, dict) else list(range(len(below)))
                continue
            kind = draw(st.sampled_from(("value", "text", "remove", "nest")))
            if kind == "remove":
                del place[key]
            elif kind == "text":
                place[key] = draw(st.text(max_size=40))
            elif kind == "nest":
                place[key] = {str(below)[:20]: [below]}
            else:
                place[key] = draw(st.sampled_from(VALUES))
            break
    return json.dumps(content).encode("utf-8", "surrogatepass")


# -- targets --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """``make``: seeds; ``run``: reads an input in a folder; ``allowed``: refusals; ``as_json``: whether it is."""

    make: Callable[[], list[bytes]]
    run: Callable[[bytes, Path], None]
    allowed: Callable[[], tuple[type[BaseException], ...]]
    as_json: bool = False


def _edge_mdda_errors() -> tuple[type[BaseException], ...]:
    from edge_mdda.errors import EdgeMddaError

    return (EdgeMddaError,)


def _image_errors() -> tuple[type[BaseException], ...]:
    from edge_mdda.errors import ImageError

    return (ImageError,)


def _bundle_errors() -> tuple[type[BaseException], ...]:
    from deploy.setup import BundleError

    return (BundleError,)


def _pictures() -> list[bytes]:
    import made_files

    whole = [make() for make in made_files.SAMPLES.values()]
    return [
        *whole,
        made_files.with_exif(made_files.SAMPLES["JPEG"](), made_files.exif(6)),
        b"",
        b"GIF89a",
        b"P6 1 1 255\n",
    ]


def _decode(content: bytes, folder: Path) -> None:
    from edge_mdda.files import Limits
    from edge_mdda.picture.decode import decode

    rgb = decode(content, Limits(max_pixels=4_000_000))
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.shape[0] * rgb.shape[1] > 4_000_000:
        raise AssertionError(f"decoded to {rgb.shape}")


def _manifests() -> list[bytes]:
    import tiny_models

    real = [path.read_bytes() for path in sorted((ROOT / "edge_mdda" / "models").glob("*.json"))]
    return [
        tiny_models.manifest_for(b"", "m.onnx").to_json().encode(),
        *(text for text in real if b'"refer_at"' in text),
    ]


def _manifest(content: bytes, folder: Path) -> None:
    from edge_mdda.classifier.manifest import is_embedded, read_manifest

    path = folder / "m.json"
    path.write_bytes(content)
    _, found = read_manifest(path)
    if not (0 <= found.refer_at <= 1 and 0 <= found.retake_at <= 1):
        raise AssertionError(f"thresholds {found.refer_at} and {found.retake_at}")
    is_embedded(content.decode(errors="replace"), found)


PRIVATE = b"\x05" * 32  # signs the fuzzed bundle; no board trusts it


def _bundles() -> list[bytes]:
    """A whole bundle of three small files, and one whose sums are drawn on after signing."""
    from nacl.signing import SigningKey

    from deploy.setup import FIRST, signed_text

    key = SigningKey(PRIVATE)
    manifest = {
        **dict.fromkeys(("board_title", "os_title", "arch", "cpu", "glibc", "version", "board", "os", "python"), "x"),
        **dict.fromkeys(("bundle_bytes", "installed_bytes"), 1000),
        **{name: [] for name in ("cpu_parts", "runtimes", "wheels", "trim")},
        "format": 1,
        "release": 1,
    }
    files = {
        "signer.pub": bytes(key.verify_key).hex().encode(),
        "manifest.json": json.dumps(manifest).encode(),
        "a.txt": b"a",
        "b/c.txt": b"c" * 600,
    }
    sums = "".join(f"{hashlib.sha256(c).hexdigest()}  {n}\n" for n, c in sorted(files.items())).encode()
    files |= {"SHA256SUMS": sums, "SHA256SUMS.sig": key.sign(signed_text(sums)).signature}
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in [*FIRST, "a.txt", "b/c.txt"]:
            info = tarfile.TarInfo(f"top/{name}")
            info.size = len(files[name])
            archive.addfile(info, io.BytesIO(files[name]))
    return [target.getvalue()]


def _unpack(content: bytes, folder: Path) -> None:
    """Damage lies inside the compression: outside it only zlib's check sum would be tried."""
    from nacl.signing import SigningKey
    from unpack import Trust, unpack

    archive = folder / "x.tar.gz"
    archive.write_bytes(gzip.compress(content, 1))
    trust = Trust([bytes(SigningKey(PRIVATE).verify_key)])
    unpack(str(archive), str(folder / "out"), trust, lambda *_: None)
    names = {path.name for path in folder.iterdir()}
    if names != {"x.tar.gz", "out"}:
        raise AssertionError(f"wrote elsewhere: {names}")


def _bundle_manifests() -> list[bytes]:
    with tarfile.open(fileobj=io.BytesIO(_bundles()[0])) as archive:
        return [archive.extractfile("top/manifest.json").read()]  # type: ignore[union-attr]


def _bundle_manifest(content: bytes, folder: Path) -> None:
    import standing
    from unpack import read_manifest

    (folder / "etc").mkdir()
    standing.check(str(folder), read_manifest(content), "x-1", b"\0" * 32, set())


def _settings_seeds() -> list[bytes]:
    boards = [path.read_bytes() for path in sorted((ROOT / "deploy" / "boards").glob("*.toml"))]
    return [*boards, b"ab" * 32 + b"  # a key\n"]


def _settings(content: bytes, folder: Path) -> None:
    """A board's profile, a file of keys, and what the service manager sets."""
    from deploy.errors import DeployError
    from deploy.profiles import read_board
    from deploy.setup import BundleError, read_keys
    from edge_mdda.classifier.signature import read_keys as read_trusted
    from edge_mdda.errors import EdgeMddaError
    from edge_mdda.watch.sd_notify import Notifier

    path = folder / "x.toml"
    path.write_bytes(content)
    for read in (lambda: read_board(path), lambda: read_keys(str(path)), lambda: read_trusted(path)):
        with contextlib.suppress(DeployError, BundleError, EdgeMddaError):
            read()
    text = content.decode(errors="replace").replace("\0", "")
    Notifier({"WATCHDOG_USEC": text, "WATCHDOG_PID": text[:10]}).close()


def _json_seeds() -> list[bytes]:
    descriptor = {
        "library": "k.so",
        "cpu": "x",
        "arch": "x",
        "features": ["a"],
        "abi": 1,
        "source_sha256": "0",
        "sha256": "0",
    }
    return [
        json.dumps({**descriptor, "kernels": {"a": "void(f4)"}}).encode(),
        b'{"image": "a.jpg", "sha256": "00", "advice": "retake", "rule": "x"}\n',
        b'{"2155649-5-1795818303622458940": 1}\n',
        (ROOT / "edge_mdda" / "mdda" / "presets.json").read_bytes(),
    ]


def _json(content: bytes, folder: Path) -> None:
    """A kernel descriptor, golden values, and what ``watch`` left in ``work``."""
    from edge_mdda.diagnostics.selftest import GOLDEN, read_golden
    from edge_mdda.errors import EdgeMddaError
    from edge_mdda.mdda.kernels.native import read_descriptor
    from edge_mdda.watch.spool import Spool

    (folder / "k.json").write_bytes(content)
    (folder / GOLDEN).write_bytes(content)
    for read in (lambda: read_descriptor(folder / "k.json"), lambda: read_golden(folder)):
        with contextlib.suppress(EdgeMddaError):
            read()
    inbox = folder / "inbox"
    (inbox / "work").mkdir(parents=True)
    (inbox / "work" / "a.jpg").write_bytes(b"picture")
    for name in (".result", ".ends"):
        (inbox / "work" / name).write_bytes(content)
    with Spool(str(inbox), 0.0) as spool:
        list(spool.recover())
    if len([path for path in inbox.rglob("*") if path.is_file() and path.read_bytes() == b"picture"]) != 1:
        raise AssertionError("the image is lost, or there twice")


TARGETS = {
    "decoder": Target(_pictures, _decode, _image_errors),
    "manifest": Target(_manifests, _manifest, _edge_mdda_errors, as_json=True),
    "unpacker": Target(_bundles, _unpack, _bundle_errors),
    "bundle manifest": Target(_bundle_manifests, _bundle_manifest, _bundle_errors, as_json=True),
    "settings": Target(_settings_seeds, _settings, _edge_mdda_errors),
    "json": Target(_json_seeds, _json, _edge_mdda_errors, as_json=True),
}


# -- rounds -----------------------------------------------------------------------------------------------------


def _round(target: Target, number: int, examples: int, shared: mmap.mmap) -> None:
    """In the child. ``shared``: count of inputs, length of the current one, and that itself."""
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    allowed, seeds = target.allowed(), target.make()

    @seed(number)
    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(damaged_json(seeds) if target.as_json else damaged(seeds))
    def one(content: bytes) -> None:
        (count,) = struct.unpack_from("<q", shared)
        shared[16 : 16 + len(content)] = content
        struct.pack_into("<qq", shared, 0, count + 1, len(content))
        faulthandler.dump_traceback_later(HANG_S, exit=True)
        with tempfile.TemporaryDirectory(prefix="edge-mdda-fuzz-") as folder, contextlib.suppress(*allowed):
            target.run(content, Path(folder))
        faulthandler.cancel_dump_traceback_later()

    one()


def run_round(name: str, number: int, examples: int, keep: Path) -> tuple[int, bool]:
    """Inputs tried, and whether all went well."""
    shared = mmap.mmap(-1, 16 + 2 * MAX_INPUT)
    sys.stdout.flush()
    if (child := os.fork()) == 0:
        status = FOUND
        try:
            _round(TARGETS[name], number, examples, shared)
            status = OK
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(status)
    _, ended = os.waitpid(child, 0)
    count, length = struct.unpack_from("<qq", shared)
    if ended:
        keep.mkdir(parents=True, exist_ok=True)
        path = keep / f"{name.replace(' ', '-')}-{number}.bin"
        path.write_bytes(shared[16 : 16 + length])
        print(f"{name}: {f'signal {os.WTERMSIG(ended)}' if os.WIFSIGNALED(ended) else 'error or hang'}; input: {path}")
    return count, not ended


def fuzz(minutes: float, keep: Path, first: int, names: list[str], examples: int = ROUND_EXAMPLES) -> int:
    """All targets in turn until the time is over, each at least once; the number of findings."""
    ends, number, findings = time.monotonic() + 60 * minutes, first, 0
    counts = dict.fromkeys(names, 0)
    while number == first or time.monotonic() < ends:
        for name in names:
            tried, good = run_round(name, number, examples, keep)
            counts[name] += tried
            findings += not good
            if number > first and time.monotonic() >= ends:
                break
        number += 1
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    for name, count in counts.items():
        print(f"{name}: {count} inputs")
    print(f"{sum(counts.values())} inputs, {findings} findings (crashes, hangs, other errors), peak {peak:.0f} MB")
    return findings


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=1.0, metavar="M", help="how long (%(default)g)")
    parser.add_argument("--seed", type=int, default=None, metavar="N", help="of the first round (default: the time)")
    parser.add_argument("--target", choices=TARGETS, action="append", help="only this one; may be repeated")
    parser.add_argument(
        "--keep", type=Path, default=Path("fuzz-findings"), metavar="DIR", help="for findings (%(default)s)"
    )
    args = parser.parse_args()
    first = int(time.time()) if args.seed is None else args.seed
    print(f"first seed {first}")
    return FOUND if fuzz(args.minutes, args.keep, first, args.target or list(TARGETS)) else OK


if __name__ == "__main__":
    sys.exit(main())
