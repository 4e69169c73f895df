"""The folder of results: the list of pictures, the plan, and one Parquet file for each part of the list.

A part is written whole, under a temporary name, and renamed; so after a kill each part is there or not, and a second
run makes those that are missing. Readers of Parquet folders pass over names that begin with ``_`` or ``.``.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from edge_mdda.files import replace_file
from export.archive.rows import Settings
from export.errors import ExportError

LIST, PLAN, LOCK = "_list.jsonl", "_plan.json", "_lock"
FORMAT = 1  # of the plan
NO_ANSWER = "no answer"


@dataclass(frozen=True)
class Plan:
    """What one folder of results is made from."""

    source: str
    pictures: int
    list_sha256: str
    rows_per_part: int
    settings: Settings

    @property
    def parts(self) -> int:
        """How many files there will be."""
        return -(-self.pictures // self.rows_per_part)

    def rows_of(self, part: int) -> int:
        """How many pictures a part holds; the last may hold fewer."""
        return min(self.rows_per_part, self.pictures - part * self.rows_per_part)


class Store:
    """An open folder of results; only one process at a time has it open."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if folder.exists() and not folder.is_dir():
            raise ExportError(f"{folder}: is a file; results go into a folder, choose another --out")
        if folder.is_dir() and not (folder / LOCK).exists() and any(folder.iterdir()):
            raise ExportError(f"{folder}: holds something else; choose another --out")
        folder.mkdir(parents=True, exist_ok=True)
        self._lock: IO[str] = (folder / LOCK).open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise ExportError(
                f"{folder}: another run is writing there; wait for it, or choose another --out"
            ) from error
        for left in folder.glob(".*.tmp"):  # of a run that was killed; nobody else writes here
            left.unlink()

    def close(self) -> None:
        """Let others open it; a folder in which nothing was begun goes."""
        if not (self.folder / PLAN).exists():
            (self.folder / LOCK).unlink(missing_ok=True)
            with suppress(OSError):
                self.folder.rmdir()
        self._lock.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def begin(self, source: str, names: Iterable[str], rows_per_part: int, settings: Settings) -> Plan:
        """Keep the list of pictures and the plan; ``names`` is read once, one at a time.

        Raises
        ------
        ExportError
            No pictures.
        """
        digest, count = hashlib.sha256(), 0
        temporary = self.folder / ".list.tmp"
        try:
            with temporary.open("wb") as file:
                for name in names:
                    line = json.dumps(name).encode() + b"\n"  # names may hold line breaks and bytes that are no UTF-8
                    digest.update(line)
                    file.write(line)
                    count += 1
                file.flush()
                os.fsync(file.fileno())
            if not count:
                raise ExportError(f"{source}: holds no pictures")
        except BaseException:
            temporary.unlink()
            raise
        os.replace(temporary, self.folder / LIST)
        plan = Plan(source, count, digest.hexdigest(), rows_per_part, settings)
        content = json.dumps({"format": FORMAT, **asdict(plan)}, indent=2) + "\n"
        replace_file(str(self.folder / PLAN), content.encode())
        return plan

    def plan(self) -> Plan | None:
        """The plan of an earlier run, or None; ExportError where plan and list do not belong together."""
        path = self.folder / PLAN
        if not path.exists():
            return None
        try:
            content = json.loads(path.read_bytes())
            if content.pop("format") != FORMAT:
                raise ValueError("of another version")
            plan = Plan(**content | {"settings": Settings(**content["settings"])})
            with (self.folder / LIST).open("rb") as file:
                found = _sha256(file)
            if found != plan.list_sha256:
                raise ValueError(f"{LIST} has changed")
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ExportError(f"{path}: cannot be used ({error}); choose another --out") from error
        return plan

    def path(self, part: int) -> Path:
        """The file of one part."""
        return self.folder / f"part-{part:06d}.parquet"

    def missing(self, plan: Plan) -> list[int]:
        """Parts that are not there, or damaged."""
        return [part for part in range(plan.parts) if not self._is_whole(part, plan)]

    def _is_whole(self, part: int, plan: Plan) -> bool:
        with suppress(OSError, pa.ArrowException):
            return pq.read_metadata(self.path(part)).num_rows == plan.rows_of(part)
        return False

    def names(self, plan: Plan, parts: Iterable[int]) -> Iterator[tuple[int, list[str]]]:
        """The pictures of some parts, one part in memory at a time; ``parts`` ascend."""
        wanted = set(parts)
        with (self.folder / LIST).open("rb") as file:
            for part in range(plan.parts):
                lines = [file.readline() for _ in range(plan.rows_of(part))]
                if part in wanted:
                    yield part, [json.loads(line) for line in lines]

    def write(self, plan: Plan, schema: pa.Schema, part: int, rows: list[dict[str, Any]]) -> None:
        """One part, whole or not at all."""
        first = part * plan.rows_per_part
        table = pa.Table.from_pylist([row | {"position": first + k} for k, row in enumerate(rows)], schema)
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        replace_file(str(self.path(part)), sink.getvalue().to_pybytes())

    def advice(self, plan: Plan) -> Counter[str]:
        """How often each advice was given, from the parts that are there."""
        counts: Counter[str] = Counter()
        for part in range(plan.parts):
            if self.path(part).exists():
                for value in pq.read_table(self.path(part), columns=["advice"])["advice"].value_counts().to_pylist():
                    counts[value["values"] or NO_ANSWER] += value["counts"]
        return counts


def _sha256(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while block := file.read(2**20):
        digest.update(block)
    return digest.hexdigest()
