"""How `tutelage serve` fares at a steady rate of requests, and with bodies that are no images.

    python benchmarks/serving.py runs/cifar10               # 100 requests a second for a minute
    python benchmarks/serving.py runs/cifar10 --fuzz 10000  # no answer may be a server's error

Requests leave at fixed times, whatever the answers do: nine of ten carry a PNG of 32x32 pixels,
one a JPEG of a megapixel. A latency is from the time that a request was due to the end of its
answer, so a request that had to wait for its turn is not flattered. The server is a process of its
own; this one drives it. Writes `benchmarks/results/DATE-serving.json` and prints what it holds.
"""

import argparse
import asyncio
import collections
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

HERE = Path(__file__).parent
FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF")
LARGE = 0.1  # of the requests
VARIANTS = 16  # pictures of each size
PATIENCE = 30  # seconds for one answer
FRESH = 2  # seconds; a connection that rested for longer may be closed by the server at any moment


class Server:
    """A running `tutelage serve`."""

    def __init__(self, process: "subprocess.Popen[str]", line: str):
        self.process, self.line = process, line
        address = re.search(r"http://([^:/]+):(\d+)", line)
        if address is None:
            raise RuntimeError(f"the server did not start: {line or process.communicate()[1]}")
        self.host, self.port = address[1], int(address[2])

    def memory(self) -> float:
        """Resident memory in MB."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return round(int(re.search(r"VmRSS:\s+(\d+)", text)[1]) * 1024 / 1e6, 1)

    def seconds(self) -> float:
        """Processor time that it has used."""
        text = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(text[11]) + int(text[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def served(paths: list[str], *options: str) -> Iterator[Server]:
    """A server of these files on a free port, which ends with the block."""
    line = [sys.executable, "-m", "tutelage", "serve", *paths, "--port", "0", *options]
    process = subprocess.Popen(line, stderr=subprocess.PIPE, text=True)
    try:
        yield Server(process, process.stderr.readline())
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stderr.close()


# --- a steady rate


def bodies(random: np.random.Generator) -> dict[str, list[bytes]]:
    """Pictures of both sizes, with the smooth and the rough parts of a photo."""
    made: dict[str, list[bytes]] = {"small": [], "large": []}
    for _ in range(VARIANTS):
        rough = Image.fromarray(random.integers(0, 256, (48, 48, 3), dtype=np.uint8))
        for size, format, kind in ((32, "PNG", "small"), (1000, "JPEG", "large")):
            pixels = np.asarray(rough.resize((size, size), Image.Resampling.BICUBIC), np.int16)
            grain = random.integers(-12, 13, pixels.shape)
            image = Image.fromarray((pixels + grain).clip(0, 255).astype(np.uint8))
            file = io.BytesIO()
            image.save(file, format, quality=85)
            made[kind].append(file.getvalue())
    return made


async def exchange(idle: list[Any], at: tuple[str, int], request: bytes) -> int:
    """One request on a connection that waits, or on a new one; the answer's status."""
    while idle and time.perf_counter() - idle[-1][0] > FRESH:
        idle.pop()[2].close()
    reader, writer = idle.pop()[1:] if idle else await asyncio.open_connection(*at)
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(re.search(rb"content-length: (\d+)", head)[1])
    await reader.readexactly(length)
    idle.append((time.perf_counter(), reader, writer))
    return int(head[9:12])


async def load(server: Server, seconds: float, rate: float, seed: int = 0) -> dict[str, Any]:
    """Send requests at a fixed rate.

    Args:
        server: to ask.
        seconds: for how long.
        rate: requests a second.
        seed: of the pictures and their order.

    Returns:
        Figures, ready for JSON.
    """
    random = np.random.default_rng(seed)
    made = bodies(random)
    idle: list[Any] = []
    statuses: collections.Counter[str] = collections.Counter()
    taken: dict[str, list[float]] = {"small": [], "large": []}
    late: list[float] = []
    memory = [server.memory()]

    async def one(due: float, kind: str, body: bytes) -> None:
        head = f"POST /predict HTTP/1.1\r\nHost: {server.host}:{server.port}\r\n"
        request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
        late.append(time.perf_counter() - due)
        try:
            at = (server.host, server.port)
            status = await asyncio.wait_for(exchange(idle, at, request), PATIENCE)
            statuses[str(status)] += 1
        except (OSError, EOFError, TimeoutError) as error:
            statuses[type(error).__name__] += 1
        taken[kind].append(time.perf_counter() - due)

    client_start, server_start = time.process_time(), server.seconds()
    start = time.perf_counter()
    tasks = []
    for number in range(round(seconds * rate)):
        due = start + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        kind = "large" if random.random() < LARGE else "small"
        body = made[kind][random.integers(VARIANTS)]
        tasks.append(asyncio.create_task(one(due, kind, body)))
        if number % max(1, round(seconds * rate / 10)) == 0:
            memory.append(server.memory())
    await asyncio.gather(*tasks)
    wall = time.perf_counter() - start
    memory.append(server.memory())
    for _, _, writer in idle:
        writer.close()
    return {
        "seconds": seconds,
        "rate": rate,
        "requests": len(tasks),
        "statuses": dict(statuses),
        "milliseconds": {
            "all": spread(taken["small"] + taken["large"]),
            "32x32 PNG": spread(taken["small"]),
            "1 megapixel JPEG": spread(taken["large"]),
            "sent too late by": spread(late),
        },
        "processor": {
            "server": round((server.seconds() - server_start) / wall, 3),
            "load generator": round((time.process_time() - client_start) / wall, 3),
        },
        "server's memory, MB": memory,
    }


def spread(seconds: list[float]) -> dict[str, float]:
    """Percentiles in milliseconds; empty without values."""
    if not seconds:
        return {}
    percentiles = np.percentile(np.array(seconds) * 1000, [50, 95, 99, 100])
    return dict(zip(("p50", "p95", "p99", "max"), percentiles.round(2).tolist(), strict=True))


# --- bodies that are no images


def corpus() -> list[bytes]:
    """Small valid files of every format that is read."""
    made = []
    random = np.random.default_rng(0)
    for format in FORMATS:
        for mode in ("RGB", "L"):
            pixels = random.integers(0, 256, (12, 9, 3), dtype=np.uint8)
            file = io.BytesIO()
            Image.fromarray(pixels).convert(mode).save(file, format)
            made.append(file.getvalue())
    return made


def fuzzed(random: np.random.Generator, files: list[bytes]) -> tuple[bytes, bool]:
    """A request that is wrong in some way, or only looks so; and whether it is whole."""
    body = bytearray(files[random.integers(len(files))])
    match random.integers(6):
        case 0:  # bits turned
            for place in random.integers(0, len(body), random.integers(1, 12)):
                body[place] ^= 1 << random.integers(8)
        case 1:  # cut off
            del body[random.integers(len(body)) :]
        case 2:  # the head of one file and the tail of another
            other = files[random.integers(len(files))]
            body = body[: random.integers(len(body))] + other[random.integers(len(other)) :]
        case 3:  # noise, after a true head or without
            body = body[: random.integers(0, 16)] + random.bytes(random.integers(0, 400))
        case 4:  # a large number where a size may stand
            place = random.integers(len(body))
            body[place : place + 4] = b"\xff\xff\xff\x7f"
    queries = ["", "?top=2", "?top=0", "?top=99999", "?top=x", "?top=-1", "?%00=%ff", "?preview=1"]
    kinds = ["image/png", "image/jpeg", "text/html", "multipart/form-data", "\x80", ""]
    query = queries[random.integers(len(queries))] if random.random() < 0.3 else ""
    lines = [f"POST /predict{query} HTTP/1.1", "Host: localhost", "Connection: close"]
    if random.random() < 0.3:
        lines.append(f"Content-Type: {kinds[random.integers(len(kinds))]}")
    if random.random() < 0.05:
        lines.append(f"X-Noise: {random.bytes(8).hex() * 400}")
    if random.random() < 0.05:
        lines.append("Expect: 100-continue")
    chunked = random.random() < 0.05
    if chunked:
        lines.append("Transfer-Encoding: chunked")  # which it isn't
    length = str(len(body))
    if random.random() < 0.1:
        length = ["0", "1", str(len(body) + 9), "99999999999", "-1", "x"][random.integers(6)]
    lines.append(f"Content-Length: {length}")
    head = "\r\n".join([*lines, "", ""]).encode("latin-1")
    return head + bytes(body), length == str(len(body)) and not chunked


def send(server: Server, request: bytes, whole: bool = True) -> list[str]:
    """The statuses of what comes back on a connection of its own, before it is closed.

    Args:
        server: to ask.
        request: its bytes.
        whole: whether the server has no cause to wait for more of it.
    """
    with socket.create_connection((server.host, server.port), timeout=PATIENCE) as line:
        answer = b""
        try:
            line.sendall(request)
            if not whole:
                line.shutdown(socket.SHUT_WR)
            while part := line.recv(65536):
                answer += part
        except ConnectionError:  # it was closed before all was read
            pass
    received = re.findall(rb"HTTP/1\.1 (\d{3})", answer)
    return [status.decode() for status in received if status != b"100"] or ["none"]


def fuzz(server: Server, count: int, seed: int = 0) -> dict[str, int]:
    """Send wrong requests.

    Args:
        server: to ask.
        count: of requests.
        seed: that they are drawn with.

    Returns:
        How many answers had each status; `none` where the connection was closed instead.

    Raises:
        AssertionError: if an answer was a server's error, or it no longer answers.
    """
    files = corpus()
    seeds = np.random.SeedSequence(seed).spawn(count)

    def one(sequence: np.random.SeedSequence) -> list[str]:
        request, whole = fuzzed(np.random.default_rng(sequence), files)
        statuses = send(server, request, whole)
        assert not any(status.startswith("5") for status in statuses), (statuses, request)
        return statuses

    with ThreadPoolExecutor(4) as pool:
        statuses = collections.Counter(s for answer in pool.map(one, seeds) for s in answer)
    health = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    assert send(server, health) == ["200"]
    assert server.process.poll() is None
    return dict(sorted(statuses.items()))


def main() -> int:
    """Run one of the two."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("paths", nargs="+", metavar="RUN|FILE")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rate", type=float, default=100, help="requests a second")
    parser.add_argument(
        "--fuzz", type=int, nargs="?", const=10_000, metavar="N", help="wrong requests instead"
    )
    parser.add_argument("--out", type=Path, default=HERE / "results")
    options = parser.parse_args()
    if options.seconds <= 0 or options.rate <= 0 or (options.fuzz is not None and options.fuzz < 1):
        parser.error("--seconds, --rate and --fuzz: expected more than 0")
    with served(options.paths) as server:
        if options.fuzz is not None:
            before = server.memory()
            print(json.dumps(fuzz(server, options.fuzz)))
            print(f"server's memory, MB: {before} before, {server.memory()} after")
            return 0
        figures = asyncio.run(load(server, options.seconds, options.rate))
    from tutelage import environment  # only now: it loads Keras

    files = re.search(r"\((.*)\)", server.line)[1]
    written = {"environment": environment.describe(), "models": files, **figures}
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"{date.today().isoformat()}-serving.json"
    path.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(figures, indent=1))
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
