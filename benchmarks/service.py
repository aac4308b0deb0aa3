"""The service under load, on the loopback: reads while plans are searched for, many uploads at once, one huge upload.

Prints figures and conditions; nothing fails because a machine is slow. What is wrong (an error, a lost byte) does.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median, quantiles

import httpx2
import numpy as np
from _harness import table

ROOT = Path(__file__).parents[1]
MB = 1 << 20


class Service:
    """A service of our own in a temporary folder.

    Parameters
    ----------
    folder : Path
    """

    def __init__(self, folder: Path) -> None:
        settings = {"DATA_DIR": folder / "data", "PORT": 0, "MAX_WORKERS": 2, "THREADS_PER_PLAN": 1, "HELPERS": 1}
        given = {f"MOE_PLACEMENT_{name}": str(value) for name, value in settings.items()}
        path = os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "api.service.server"],
                cwd=ROOT,
                env=os.environ | given | {"PYTHONPATH": path},
                stderr=log,
                stdout=log,
            )
        begin = time.monotonic()
        while True:
            found = [line for line in self.log.read_text().splitlines() if '"service.listening"' in line]
            if found:
                break
            if time.monotonic() - begin > 60 or self.process.poll() is not None:
                raise SystemExit(f"The service did not start:\n{self.log.read_text()}")
            time.sleep(0.02)
        self.start_s = time.monotonic() - begin
        self.url = f"http://127.0.0.1:{json.loads(found[0])['address'][1]}"
        self.http = httpx2.Client(base_url=self.url, timeout=600)

    def peak_mb(self) -> float:
        """Return the peak resident memory of the server process, not of its workers."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024

    def stop(self) -> None:
        """End it."""
        self.http.close()
        self.process.terminate()
        self.process.wait(60)


def trace_file(tokens: int, seed: int, layers: int = 16, experts: int = 64, top_k: int = 8) -> bytes:
    """Return an npz trace, not compressed."""
    rng = np.random.default_rng(seed)
    first = rng.integers(0, experts, (tokens, layers, 1), dtype=np.int64)
    ids = ((first + np.arange(top_k)) % experts).astype(np.uint8)
    file = io.BytesIO()
    np.savez(file, topk_ids=ids, layer_ids=np.arange(layers), num_experts=np.array(experts))
    return file.getvalue()


def searching(service: Service, seconds: float) -> str:
    """Begin two searches that last; return the path of a plan that is finished."""
    trace = service.http.post("/v1/traces", content=trace_file(4000, 0)).raise_for_status().json()["id"]
    body = {"trace": trace, "topology": "2x4", "solver": "annealing"}
    wait = {"Prefer": "wait=60"}
    done = service.http.post("/v1/plans", json=body | {"limits": {"work": 1000}}, headers=wait).raise_for_status()
    for seed in (1, 2):
        asked = body | {"seed": seed, "limits": {"time_s": seconds}}
        place = service.http.post("/v1/plans", json=asked).raise_for_status().headers["location"]
        while service.http.get(place).json()["status"] == "queued":
            time.sleep(0.1)
    return f"/v1/plans/{done.json()['id']}"


def reads(service: Service, path: str, seconds: int, connections: int) -> tuple[str, float, float, float, int]:
    """Return the tool, reads per second, median and 99th percentile in ms, and errors."""
    if (wrk := shutil.which("wrk")) is not None:
        command = [wrk, "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", service.url + path]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        rate = float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1])
        errors = sum(
            int(n) for n in re.findall(r"(?:Non-2xx or 3xx responses:|connect|read|write|timeout) (\d+)", text)
        )
        return "wrk", rate, _ms(text, "50%"), _ms(text, "99%"), errors
    took: list[float] = []
    errors, stop = 0, time.monotonic() + seconds

    def client() -> None:
        nonlocal errors
        with httpx2.Client(base_url=service.url) as http:
            while time.monotonic() < stop:
                begin = time.perf_counter()
                errors += http.get(path).status_code != 200
                took.append(time.perf_counter() - begin)

    threads = [threading.Thread(target=client) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    late = quantiles(took, n=100, method="inclusive")[98]
    return "threads", len(took) / seconds, 1e3 * median(took), 1e3 * late, errors


def _ms(text: str, row: str) -> float:
    value, unit = re.search(rf"{row}\s+([\d.]+)(us|ms|s|m)", text).groups()
    return float(value) * {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}[unit]


def uploads(service: Service, count: int, megabytes: int) -> list[float]:
    """Upload so many different traces at once; return the seconds that each took."""
    tokens = megabytes * MB // (16 * 8)
    base = trace_file(tokens, 1)

    def upload(number: int) -> float:
        # A column of its own makes other bytes of it.
        file = io.BytesIO(base)
        with zipfile.ZipFile(file, "a") as archive:
            member = io.BytesIO()
            np.save(member, np.full(tokens, number, np.int64))
            archive.writestr("seq_id.npy", member.getvalue())
        content = file.getvalue()
        begin = time.monotonic()
        answer = service.http.post("/v1/traces", content=content)
        if answer.status_code not in (200, 201):
            raise SystemExit(f"upload {number}: {answer.status_code} {answer.text[:300]}")
        if answer.json()["id"] != f"sha256:{hashlib.sha256(content).hexdigest()}":
            raise SystemExit(f"upload {number} was kept under another name")
        return time.monotonic() - begin

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(upload, range(count)))


def huge(service: Service, path: Path, tokens: int, part_mb: int) -> tuple[float, int]:
    """Send a file in parts, every fourth of them cut short; return the seconds, and how often it was resumed."""
    upload = service.http.post("/v1/uploads", json={"name": path.name}).raise_for_status().json()["id"]
    place, begin, total = f"/v1/uploads/{upload}", time.monotonic(), path.stat().st_size
    number = resumed = 0
    while (offset := service.http.get(place).raise_for_status().json()["offset"]) < total:
        number += 1
        size = min(part_mb * MB, total - offset)
        fields = {"Upload-Offset": str(offset), "Content-Type": "application/octet-stream"}
        try:
            with httpx2.Client(base_url=service.url, timeout=600) as http:
                cut = size // 2 if number % 4 == 0 else None
                sent = http.patch(place, content=blocks_of(path, offset, size, cut), headers=fields)
        except _BrokenOffError:
            resumed += 1
            continue
        # 409: the service had not yet seen that the last connection was gone, or it took more before it did.
        if sent.status_code not in (204, 409):
            raise SystemExit(f"part at {offset}: {sent.status_code} {sent.text[:300]}")
    answer = service.http.post(f"{place}/finish")
    if answer.status_code != 201 or answer.json()["num_tokens"] != tokens:
        raise SystemExit(f"finish: {answer.status_code} {answer.text[:300]}")
    with path.open("rb") as file:
        if answer.json()["id"] != f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}":
            raise SystemExit("The file arrived as another one.")
    return time.monotonic() - begin, resumed


class _BrokenOffError(Exception):
    """We went away in the middle of a part, as a lost connection would."""


def huge_file(path: Path, gigabytes: float) -> int:
    """Write an npz trace of about so many GB whose rows repeat, never held in memory; return its number of tokens."""
    rng = np.random.default_rng(0)
    block = ((rng.integers(0, 64, (8192, 16, 1)) + np.arange(8)) % 64).astype(np.uint8).tobytes()  # 1 MB
    blocks = max(1, round(gigabytes * 1024))
    head = io.BytesIO()
    shape = {"descr": "|u1", "fortran_order": False, "shape": (8192 * blocks, 16, 8)}
    np.lib.format.write_array_header_1_0(head, shape)
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in (("layer_ids", np.arange(16)), ("num_experts", np.array(64))):
            member = io.BytesIO()
            np.save(member, array)
            archive.writestr(f"{name}.npy", member.getvalue())
        with archive.open("topk_ids.npy", "w", force_zip64=True) as file:
            file.write(head.getvalue())
            for _ in range(blocks):
                file.write(block)
    return 8192 * blocks


def blocks_of(path: Path, offset: int, size: int, cut: int | None) -> Iterator[bytes]:
    """Return a part of a file; after `cut` bytes the connection is given up, as if it were lost."""
    with path.open("rb") as file:
        file.seek(offset)
        sent = 0
        while sent < size:
            block = file.read(min(MB, size - sent))
            yield block
            sent += len(block)
            if cut is not None and sent >= cut:
                raise _BrokenOffError


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=10, help="of reads")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--uploads", type=int, default=50)
    parser.add_argument("--upload-mb", type=int, default=20)
    parser.add_argument("--huge-gb", type=float, default=0.5, help="5 for the record: it takes twice that on the disk")
    parser.add_argument("--part-mb", type=int, default=64)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="service-") as folder:
        service = Service(Path(folder))
        try:
            rows = [("start to listening", f"{service.start_s:.2f} s", "5 s")]
            path = searching(service, given.seconds * 3 + 20)
            tool, rate, middle, slow, errors = reads(service, "/v1/plans?limit=1", given.seconds, given.connections)
            rows.append(
                (
                    f"list, {tool}",
                    f"{rate:.0f}/s, p50 {middle:.1f} ms, p99 {slow:.1f} ms, {errors} errors",
                    "300/s, 100 ms",
                )
            )
            tool, rate, middle, slow, errors = reads(service, path, given.seconds, given.connections)
            rows.append(
                (
                    f"plan, {tool}",
                    f"{rate:.0f}/s, p50 {middle:.1f} ms, p99 {slow:.1f} ms, {errors} errors",
                    "300/s, 100 ms",
                )
            )
            _cancel(service)
            took = uploads(service, given.uploads, given.upload_mb)
            rows.append(
                (f"{given.uploads} uploads of {given.upload_mb} MB at once", f"slowest {max(took):.1f} s", "all kept")
            )
            rows.append(("peak of the server so far", f"{service.peak_mb():.0f} MB", "400 MB"))
            file = Path(folder) / "huge.npz"
            tokens = huge_file(file, given.huge_gb)
            seconds, resumed = huge(service, file, tokens, given.part_mb)
            rate = given.huge_gb * 1024 / seconds
            rows.append(
                (f"{given.huge_gb:g} GB in parts", f"{seconds:.0f} s, {rate:.0f} MB/s, resumed {resumed} times", "kept")
            )
            rows.append(("peak of the server", f"{service.peak_mb():.0f} MB", "400 MB"))
        finally:
            service.stop()
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    sys.stdout.write(f"{os.cpu_count()} cores, load average {load}, {given.connections} connections\n\n")
    sys.stdout.write(table(("service", "measured", "target"), rows) + "\n")


def _cancel(service: Service) -> None:
    for plan in service.http.get("/v1/plans", params={"status": ["queued", "running"]}).json()["items"]:
        service.http.post(f"/v1/plans/{plan['id']}/cancel")


if __name__ == "__main__":
    main()
