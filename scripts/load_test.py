"""How a running `omgsr serve` bears many clients, beside one client in the same run.

python scripts/load_test.py http://127.0.0.1:8000 --clients 64 --seconds 300

There is a list of pictures of mixed sizes, formats, colours and scales. One client sends all of
them, --rounds times. Then many clients send them, each in an order of its own, and wait for each
result; after 429 they wait as long as they are told. `speed` is the time that one client takes for
the pictures that the many got, over the time that these took. The token is read from OMGSR_TOKEN.
Exits with 1 if anything but 200 and 429 was answered.
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
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

_TIMEOUT = 600
_COLORS = ("adain", "wavelet", "lab", "none")
_KINDS = ("PNG", "JPEG", "WEBP")
_MODES = ("RGB", "RGB", "RGB", "L", "RGBA")
_WATCHED = ("process_resident_memory_bytes", "omgsr_compiled_programs", "omgsr_waiting")


@dataclass(frozen=True)
class Request:
    """What a client sends: which picture of the list, its path and its content."""

    picture: int
    path: str
    body: bytes


@dataclass
class Found:
    """What clients were answered."""

    seconds: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))  # of results
    statuses: Counter[str] = field(default_factory=Counter)
    batches: list[int] = field(default_factory=list)
    pixels: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, picture: int, status: str, seconds: float, headers: dict[str, str]) -> None:
        with self.lock:
            self.statuses[status] += 1
            if status == "200":
                self.seconds[picture].append(seconds)
                self.batches.append(int(headers["omgsr-batch"]))
                width, height = map(int, headers["omgsr-size"].split("x"))
                self.pixels += width * height

    @property
    def results(self) -> list[float]:
        return [one for seconds in self.seconds.values() for one in seconds]

    def seconds_alone(self, alone: Mapping[int, list[float]]) -> float:
        """How long one client takes for these results, by what it took for each picture."""
        return sum(len(took) * float(np.mean(alone[i])) for i, took in self.seconds.items())


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


def requests(pictures: int, sides: tuple[int, int], scales: Sequence[float]) -> list[Request]:
    rng = random.Random(0)
    return [
        Request(i, f"/v1/upscale?{query(rng, scales)}", picture(rng, sides))
        for i in range(pictures)
    ]


def send(service: Service, request: Request, found: Found) -> float:
    """Seconds after which the service can be asked again."""
    started = time.monotonic()
    status, headers, _ = service.ask("POST", request.path, request.body)
    found.add(request.picture, status, time.monotonic() - started, headers)
    return 0 if status == "200" else float(headers.get("retry-after", 1))


def one_client(service: Service, listed: Sequence[Request], rounds: int, found: Found) -> None:
    """Sends all pictures, one after the other."""
    for request in list(listed) * rounds:
        while pause := send(service, request, found):
            time.sleep(pause)


def client(
    service: Service, listed: Sequence[Request], number: int, end: float, found: Found
) -> None:
    """Sends pictures until the time is over."""
    rng = random.Random(number)
    while time.monotonic() < end:
        pause = send(service, rng.choice(listed), found)
        time.sleep(min(pause, max(0, end - time.monotonic())))


def watch(service: Service, threads: Iterable[threading.Thread], found: Found) -> dict:
    """What these clients find."""
    before, started = service.figures(), time.monotonic()
    threads = list(threads)
    for thread in threads:
        thread.start()
    memory = []
    while any(thread.is_alive() for thread in threads):
        time.sleep(1)
        memory.append(service.figures().get("process_resident_memory_bytes", 0))
    took, after = time.monotonic() - started, service.figures()
    quantiles = np.quantile(found.results or [0], [0.5, 0.95])
    compiled = "omgsr_compiled_programs"
    return {
        "clients": len(threads),
        "seconds": round(took, 1),
        "statuses": dict(found.statuses),
        "images_per_second": round(len(found.results) / took, 3),
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


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("address", nargs="?", default="http://127.0.0.1:8000")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--pictures", type=int, default=12)
    parser.add_argument(
        "--rounds", type=int, default=2, help="how often one client sends all pictures before"
    )
    parser.add_argument("--sides", type=_sides, default=(32, 128), metavar="PX-PX")
    parser.add_argument("--scales", type=_scales, default=[2, 3, 4], metavar="X,X")
    return parser.parse_args()


def main() -> int:
    args = _arguments()
    service, alone, many = Service(args.address), Found(), Found()
    listed = requests(args.pictures, args.sides, args.scales)
    only = threading.Thread(target=one_client, args=(service, listed, args.rounds, alone))
    print(json.dumps(watch(service, [only], alone)), flush=True)
    if not all(alone.seconds[request.picture] for request in listed):
        print(f"one client got {dict(alone.statuses)}", file=sys.stderr)
        return 1
    end = time.monotonic() + args.seconds
    clients = (
        threading.Thread(target=client, args=(service, listed, number, end, many))
        for number in range(args.clients)
    )
    found = watch(service, clients, many)
    speed = many.seconds_alone(alone.seconds) / found["seconds"]
    print(json.dumps(found | {"speed": round(speed, 3)}), flush=True)
    wrong = (set(alone.statuses) | set(many.statuses)) - {"200", "429"}
    if wrong:
        print(f"answers besides 200 and 429: {', '.join(sorted(wrong))}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
