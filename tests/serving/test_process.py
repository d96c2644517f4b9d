"""The service as a process: SIGTERM finishes what is accepted; hostile uploads leave nothing."""

import json
import random
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from omgsr_jax import cli
from tests.hostile.images import all_cases

from .conftest import png
from .processes import STAND_IN, served

pytest.importorskip("fastapi", reason="the extra [serve] is not installed")


@pytest.mark.slow
def test_sigterm_in_the_middle_loses_nothing_that_is_accepted():
    """Forty clients that wait, and jobs whose results are fetched later."""
    with served("-c", STAND_IN, "0.3") as service, ThreadPoolExecutor(40) as clients:
        jobs = [json.loads(service.ask("/v1/jobs?scale=2", png())[1]) for _ in range(6)]
        begun = time.monotonic()
        waiting = [
            clients.submit(service.ask, "/v1/upscale?scale=2", png(8, 4 + n % 5)) for n in range(40)
        ]
        time.sleep(1)
        service.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert service.ask("/v1/upscale", png())[0] == 503
        answers = [one.result() for one in waiting]
        assert [status for status, _ in answers] == [200] * 40
        assert all(body.startswith(b"\x89PNG") for _, body in answers)
        assert time.monotonic() - begun > 2  # so that it was indeed in the middle
        for job in jobs:
            assert service.ask(f"/v1/jobs/{job['id']}/result")[0] == 200
        assert service.process.wait(20) == 0
        lines = [json.loads(line) for line in service.log.read_text().splitlines()]
    assert sum(line.get("status") == 200 and "batch" in line for line in lines) == 40
    assert sum("job" in line and "batch" in line for line in lines) == 6


@pytest.mark.slow
def test_a_second_signal_ends_it_at_once():
    with served("-c", STAND_IN, "30") as service:
        service.ask("/v1/jobs?scale=2", png())
        for _ in range(2):
            service.process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
        service.process.wait(15)


@pytest.mark.slow
def test_a_client_that_leaves_frees_its_place():
    with served("-c", STAND_IN, "1") as service:
        host, port = service.address.removeprefix("http://").split(":")
        body = png()
        head = (
            f"POST /v1/upscale?scale=2 HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        for _ in range(30):
            with socket.create_connection((host, int(port))) as connection:
                connection.sendall(head.encode() + body)
                time.sleep(0.02)
        begun = time.monotonic()
        assert service.ask("/v1/upscale?scale=2", png())[0] == 200
        assert time.monotonic() - begun < 4  # not the ten batches that were asked for
        assert b"omgsr_waiting 0.0" in service.ask("/metrics")[1]
        left = [json.loads(line) for line in service.log.read_text().splitlines()]
        assert sum(line["status"] == 499 for line in left) >= 25


@pytest.mark.slow
def test_a_thousand_hostile_uploads_get_an_answer_and_leave_no_file(tmp_path):
    """The corpus as it is, and damaged further; sent as raw bytes and as forms."""
    files = [case.write(_made(tmp_path / "corpus")) for case in all_cases()]
    contents = [_begun(path) for path in files if path.is_file() and not path.is_symlink()]
    rng = random.Random(0)
    while len(contents) < 1000:
        data = bytearray(rng.choice(contents[: len(files)])[:100_000])
        for _ in range(rng.randint(1, 8)):
            if data:
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        contents.append(bytes(data[: rng.randint(0, len(data))] if rng.random() < 0.3 else data))
    temporary = _made(tmp_path / "tmp")
    with served("-c", STAND_IN, "0", TMPDIR=str(temporary)) as service:
        with ThreadPoolExecutor(8) as clients:
            statuses = list(clients.map(lambda data: _sent(service, data), contents))
        assert service.ask("/v1/upscale?scale=2", png())[0] == 200
        assert b"omgsr_waiting 0.0" in service.ask("/metrics")[1]
    counts = {status: statuses.count(status) for status in sorted(set(statuses))}
    print(len(contents), "uploads:", counts)
    assert set(counts) <= {200, 400, 413, 415, 422}
    assert not list(temporary.iterdir())


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


def _begun(path: Path) -> bytes:
    """Some have gigabytes."""
    with path.open("rb") as file:
        return file.read(2**21)


def _sent(service, data: bytes) -> int:
    return service.ask("/v1/upscale?scale=2", data)[0]


def test_a_port_that_is_taken_is_one_sentence(capsys, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert cli.main(["serve", "--port", str(port)]) == 1
    assert f"cannot listen on 127.0.0.1, port {port}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "says"), [(None, "cannot be read"), ("", "one word"), ("a b", "one word")]
)
def test_a_token_is_read_from_a_file(tmp_path, capsys, content, says):
    path = tmp_path / "token"
    if content is not None:
        path.write_text(content)
    assert cli.main(["serve", "--token-file", str(path)]) == 1
    assert says in capsys.readouterr().err


def test_a_service_whose_model_cannot_be_loaded_ends_with_the_reason(monkeypatch, capsys):
    from omgsr_jax.errors import InputError
    from omgsr_jax.serving import server

    def load(*given, **more):
        raise InputError("this is no model")

    monkeypatch.setattr(server, "load", load)
    assert cli.main(["serve", "--port", "0"]) == 1
    assert "omgsr serve: this is no model" in capsys.readouterr().err
