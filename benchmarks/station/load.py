"""Many clients at once on loopback, memory, and the time until the station answers."""

from __future__ import annotations

import contextlib
import http.client
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edge_mdda.models import DEMO_IMAGE

CLIENTS, UPLOADERS = 20, 2
STARTS = 3
BOUNDARY = "a-boundary-that-is-in-no-picture"
MIB = 1 << 20


@contextlib.contextmanager
def station(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str, float]]:
    """``edge-mdda serve``: the process, its host and port, and seconds until it answered."""
    begin = time.perf_counter()
    words = [sys.executable, "-m", "edge_mdda", "serve", "--port", "0", *arguments]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        found = re.search(r"http://([\d.:]+)", process.stdout.readline())
        if found is None:
            raise RuntimeError("the station did not start")
        with contextlib.closing(Client(found[1])) as client:
            client.get("/healthz")
        yield process, found[1], time.perf_counter() - begin
    finally:
        process.terminate()
        process.communicate(timeout=30)


class Client:
    """One browser's connection."""

    def __init__(self, host: str) -> None:
        self.host, self.cookie, self.csrf = host, "", ""
        self._connection = http.client.HTTPConnection(host, timeout=60)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _ask(self, method: str, path: str, body: bytes | None = None, kind: str = "") -> tuple[int, str, str]:
        headers = {"Cookie": self.cookie}
        if body is not None:
            headers |= {"Origin": f"http://{self.host}", "Content-Type": kind}
        self._connection.request(method, path, body, headers)
        answer = self._connection.getresponse()
        text = answer.read().decode(errors="replace")
        if answer.getheader("set-cookie"):
            self.cookie = str(answer.getheader("set-cookie")).partition(";")[0]
        return answer.status, text, answer.getheader("location") or ""

    def get(self, path: str) -> str:
        """A page; RuntimeError where it is refused."""
        status, text, _ = self._ask("GET", path)
        if status != 200:
            raise RuntimeError(f"GET: {status}")
        found = re.search(r'name="csrf" value="(\w+)"', text)
        self.csrf = found[1] if found else self.csrf
        return text

    def post(self, path: str, fields: dict[str, str], picture: bytes | None = None) -> str:
        """Send a form; returns where it leads."""
        parts = [
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
            for name, value in {"csrf": self.csrf, **fields}.items()
        ]
        if picture is not None:
            head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="pictures"; filename="p.jpg"\r\n\r\n'
            parts += [head.encode(), picture, b"\r\n"]
        body = b"".join([*parts, f"--{BOUNDARY}--\r\n".encode()])
        status, _, place = self._ask("POST", path, body, f"multipart/form-data; boundary={BOUNDARY}")
        if status != 303:
            raise RuntimeError(f"POST: {status}")
        return place


def resident(pid: int) -> dict[str, float]:
    """Resident and proportional memory of the station and its worker, in MB."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    sizes = {"station_mb": 0.0, "worker_mb": 0.0, "together_pss_mb": 0.0}
    for name, process in [("station_mb", str(pid)), *(("worker_mb", child) for child in children)]:
        lines = dict(
            line.split(":", 1) for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines() if ":" in line
        )
        sizes[name] += int(lines["Rss"].split()[0]) / 1024
        sizes["together_pss_mb"] += int(lines["Pss"].split()[0]) / 1024
    return {name: round(size, 1) for name, size in sizes.items()}


def percentiles(seconds: list[float]) -> dict[str, float]:
    """p50, p95 and p99 in milliseconds."""
    ordered = sorted(seconds)
    return {
        f"p{share}_ms": round(1e3 * ordered[min(len(ordered) - 1, len(ordered) * share // 100)], 1)
        for share in (50, 95, 99)
    }


def _clients(host: str, seconds: float) -> dict[str, Any]:
    taken: dict[str, list[float]] = {"page": [], "screening": []}
    errors: list[str] = []
    end = time.monotonic() + seconds
    picture = DEMO_IMAGE.read_bytes()

    def work(number: int) -> None:
        client = Client(host)
        client.get("/")
        patient = client.post("/patients", {"own_id": f"L-{number}", "sex": "unknown"})
        lesion = client.post(f"{patient}/lesions", {"site": "face-front"})
        pages = ["/", patient, lesion, "/patients/new"]
        count = 0
        while time.monotonic() < end:
            count += 1
            kind = "screening" if number < UPLOADERS else "page"
            begin = time.perf_counter()
            try:
                if kind == "screening":
                    # A comment behind the picture's end: another file, the same picture.
                    pages[-1] = client.post(f"{lesion}/pictures", {}, picture + f"{number}-{count}".encode())
                else:
                    client.get(pages[count % len(pages)])
            except (RuntimeError, OSError, http.client.HTTPException) as error:
                errors.append(f"{kind}: {error}")
                client.close()
                client = Client(host)
                continue
            taken[kind].append(time.perf_counter() - begin)
        client.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {
        **{kind: {"count": len(found), **percentiles(found)} for kind, found in taken.items()},
        "errors": len(errors),
        "first_errors": errors[:3],
    }


def run(seconds: float) -> dict[str, Any]:
    """Start times, memory idle and in work, and the load."""
    with tempfile.TemporaryDirectory(prefix="edge-mdda-load-") as place:
        starts = []
        for _ in range(STARTS):
            with station("--data", f"{place}/data") as (_, _, start):
                starts.append(round(start, 2))
        with station("--data", f"{place}/data") as (process, host, _):
            time.sleep(5)  # the worker has opened the model
            idle = resident(process.pid)
            load = _clients(host, seconds)
            return {"start_s": starts, "idle": idle, "in_work": resident(process.pid), "load": load}
