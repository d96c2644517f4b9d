"""How a running `omgsr serve` bears many clients, beside one client in the same run.

python scripts/load_test.py http://127.0.0.1:8000 --clients 64 --seconds 300

Clients send pictures of mixed sizes, formats, colours and scales, one after the other, and wait for
each result; after 429 they wait as long as they are told. The token is read from OMGSR_TOKEN. Exits
with 1 if anything but 200 and 429 was answered.
"""

import argparse
import http.client
import io
import json
import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

_TIMEOUT = 600
_COLORS = ("adain", "wavelet", "lab", "none")
_KINDS = ("PNG", "JPEG", "WEBP")
_MODES = ("RGB", "RGB", "RGB", "L", "RGBA")
_WATCHED = ("process_resident_memory_bytes", "omgsr_compiled_programs", "omgsr_waiting")


@dataclass
class Found:
    """What clients were answered."""

    seconds: list[float] = field(default_factory=list)  # of results
    statuses: Counter[str] = field(default_factory=Counter)
    batches: list[int] = field(default_factory=list)
    pixels: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, status: str, seconds: float, headers: dict[str, str]) -> None:
        with self.lock:
            self.statuses[status] += 1
            if status == "200":
                self.seconds.append(seconds)
                self.batches.append(int(headers["omgsr-batch"]))
                width, height = map(int, headers["omgsr-size"].split("x"))
                self.pixels += width * height


class Service:
    """Where requests go."""

    def __init__(self, address: str):
        self.parts = urlsplit(address)
        token = os.environ.get("OMGSR_TOKEN")
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[str, dict, bytes]:
        """Status, headers and content; the status says what went wrong with the connection."""
        kind = {"https": http.client.HTTPSConnection}.get(
            self.parts.scheme, http.client.HTTPConnection
        )
        connection = kind(self.parts.hostname or "", self.parts.port, timeout=_TIMEOUT)
        try:
            connection.request(method, path, body, self.headers)
            answer = connection.getresponse()
            headers = {name.lower(): value for name, value in answer.getheaders()}
            return str(answer.status), headers, answer.read()
        except (OSError, http.client.HTTPException) as error:
            return type(error).__name__, {}, b""
        finally:
            connection.close()

    def figures(self) -> dict[str, float]:
        lines = self.ask("GET", "/metrics")[2].decode().splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
        return {name: float(value) for name, value in pairs if name in _WATCHED}


def picture(rng: random.Random, sides: tuple[int, int]) -> bytes:
    """An image file of a random size, mode and format."""
    mode, kind = rng.choice(_MODES), rng.choice(_KINDS)
    size = rng.randint(*sides), rng.randint(*sides)
    coarse = np.random.default_rng(rng.getrandbits(32)).integers(0, 256, (6, 6, 4), np.uint8)
    image = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.convert("RGB" if (mode, kind) == ("RGBA", "JPEG") else mode).save(buffer, kind)
    return buffer.getvalue()


def query(rng: random.Random, scales: Sequence[float]) -> str:
    parts = [f"scale={rng.choice(scales):g}", f"color={rng.choice(_COLORS)}"]
    parts += [f"seed={rng.randint(0, 3)}"] if rng.random() < 0.1 else []
    return "&".join([*parts, f"format={rng.choice(('png', 'jpg', 'webp'))}"])


def client(
    service: Service, args: argparse.Namespace, number: int, end: float, found: Found
) -> None:
    """Sends pictures until the time is over."""
    rng = random.Random(number)
    while time.monotonic() < end:
        path = f"/v1/upscale?{query(rng, args.scales)}"
        body = picture(rng, args.sides)
        started = time.monotonic()
        status, headers, _ = service.ask("POST", path, body)
        found.add(status, time.monotonic() - started, headers)
        if status != "200":
            time.sleep(min(float(headers.get("retry-after", 1)), max(0, end - time.monotonic())))


def load(service: Service, args: argparse.Namespace, clients: int, seconds: float) -> dict:
    """What so many clients find in this time."""
    found, before = Found(), service.figures()
    started = time.monotonic()
    threads = [
        threading.Thread(target=client, args=(service, args, n, started + seconds, found))
        for n in range(clients)
    ]
    for thread in threads:
        thread.start()
    memory = []
    while any(thread.is_alive() for thread in threads):
        time.sleep(1)
        memory.append(service.figures().get("process_resident_memory_bytes", 0))
    took, after = time.monotonic() - started, service.figures()
    quantiles = np.quantile(found.seconds or [0], [0.5, 0.95])
    compiled = "omgsr_compiled_programs"
    return {
        "clients": clients,
        "seconds": round(took, 1),
        "statuses": dict(found.statuses),
        "images_per_second": round(len(found.seconds) / took, 3),
        "megapixels_per_second": round(found.pixels / 1e6 / took, 3),
        "p50_seconds": round(float(quantiles[0]), 3),
        "p95_seconds": round(float(quantiles[1]), 3),
        "images_per_batch": round(float(np.mean(found.batches or [0])), 2),
        "compilations": int(after.get(compiled, 0) - before.get(compiled, 0)),
        "memory_mb": [round(memory[int(i)] / 1e6) for i in np.linspace(0, len(memory) - 1, 7)],
    }


def _scales(text: str) -> list[float]:
    return [float(one) for one in text.split(",")]


def _sides(text: str) -> tuple[int, int]:
    least, _, most = text.partition("-")
    return int(least), int(most or least)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("address", nargs="?", default="http://127.0.0.1:8000")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument(
        "--alone", type=float, default=60, metavar="S", help="seconds of one client before"
    )
    parser.add_argument("--sides", type=_sides, default=(32, 128), metavar="PX-PX")
    parser.add_argument("--scales", type=_scales, default=[2, 3, 4], metavar="X,X")
    args = parser.parse_args()
    service, wrong = Service(args.address), set()
    for clients, seconds in ((1, args.alone), (args.clients, args.seconds)):
        found = load(service, args, clients, seconds)
        print(json.dumps(found), flush=True)
        wrong |= set(found["statuses"]) - {"200", "429"}
    if wrong:
        print(f"answers besides 200 and 429: {', '.join(sorted(wrong))}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
