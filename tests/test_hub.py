"""The hub: what is asked for is fetched once, and what cannot be had is one sentence."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants, hf_hub_download

from omgsr_jax import hub
from omgsr_jax.errors import InputError

ROOT = Path(__file__).parent.parent
NAME = "someone/something"
FILES = {
    "config.json": b"{}",
    "deep/er/weights.safetensors": b"w" * 70_000,
    "twin.fp16.safetensors": b"t" * 35_000,
    "README.md": b"r" * 500,
}
# huggingface_hub hands on pieces of 10 MiB, so this is what a download that is cut off has kept.
PIECE = 10 * 2**20

_FETCH = """
import sys
from omgsr_jax import hub
hub.repository(sys.argv[1]).fetch([sys.argv[2]])
"""


@pytest.fixture
def filled(fake_hub):
    fake_hub.repositories[NAME] = FILES
    return fake_hub


def offline(monkeypatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("user/name", True),
        ("stabilityai/sd-turbo@v1.0", True),
        ("user/name@refs/pr/3", True),
        ("name", False),
        ("./user/name", False),
        ("/user/name", False),
        ("models/omgsr/s", False),
        ("user/../name", False),
        ("user/name@../../x", False),
        ("user/name@", False),
        ("~/name", False),
    ],
)
def test_what_could_be_a_repository(text, expected):
    assert hub.is_name(text) is expected


def test_what_is_asked_for_is_sent_once_and_nothing_else(filled):
    names = {"config.json", "deep/er/weights.safetensors"}
    for _ in range(2):
        folder = hub.repository(NAME).fetch(names)
        assert {name: (folder / name).read_bytes() for name in names} == {
            name: FILES[name] for name in names
        }
    assert filled.bytes_sent() == filled.bytes_of(NAME, names) == 70_002
    # As huggingface_hub itself lays it out, so that it finds the files too.
    found = hf_hub_download(NAME, "config.json", local_files_only=True)
    assert Path(found) == folder / "config.json"


def test_a_revision_is_fetched_as_such(filled, monkeypatch):
    assert hub.repository(f"{NAME}@v1").fetch(["config.json"]).name == filled.commit(NAME)
    offline(monkeypatch)
    assert hub.repository(f"{NAME}@v1").fetch(["config.json"]).is_dir()
    assert hub.repository(f"{NAME}@{filled.commit(NAME)}").fetch(["config.json"]).is_dir()
    with pytest.raises(InputError, match="There is no main of it in the hub's cache"):
        hub.repository(NAME)


def test_a_killed_download_goes_on_where_it_stopped(fake_hub, tmp_path):
    data = np.random.default_rng(0).bytes(2 * PIECE + 5_000_000)
    fake_hub.repositories[NAME] = {"weights.safetensors": data}
    fake_hub.held["weights.safetensors"] = 2 * PIECE + 1_000_000
    cache = tmp_path / "hub"
    settings = {"HF_ENDPOINT": fake_hub.url, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "-c", _FETCH, NAME, "weights.safetensors"]
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | settings)
    (partial,) = _begun(cache, fake_hub, size=2 * PIECE)
    process.kill()
    process.wait()
    fake_hub.sent.clear()
    folder = hub.repository(NAME).fetch(["weights.safetensors"])
    assert fake_hub.bytes_sent() == len(data) - 2 * PIECE
    assert (folder / "weights.safetensors").read_bytes() == data
    assert not partial.exists()


def _begun(cache: Path, fake_hub, *, size: int) -> list[Path]:
    """The files that are being fetched, when that many bytes of them are on disk."""
    assert fake_hub.stalled.wait(60)
    for _ in range(600):
        found = list(cache.rglob("*.incomplete"))
        if found and found[0].stat().st_size >= size:
            return found
        time.sleep(0.05)
    raise AssertionError("nothing was begun")


def test_a_connection_that_is_lost_is_taken_up_again(fake_hub):
    data = np.random.default_rng(0).bytes(PIECE + 1_000_000)
    fake_hub.repositories[NAME] = {"weights.safetensors": data}
    fake_hub.cuts["weights.safetensors"] = PIECE + 1000
    folder = hub.repository(NAME).fetch(["weights.safetensors"])
    assert (folder / "weights.safetensors").read_bytes() == data
    assert fake_hub.bytes_sent() == len(data) + 1000  # the last piece was not whole


def test_what_was_damaged_on_its_way_is_not_kept(filled, tmp_path):
    cache = tmp_path / "hub" / "models--someone--something" / "blobs"
    cache.mkdir(parents=True)
    digest = hub.repository(NAME).files["twin.fp16.safetensors"].sha256
    (cache / f"{digest}.incomplete").write_bytes(b"another beginning")
    with pytest.raises(InputError, match=r"twin\.fp16\.safetensors of .* was damaged on its way"):
        hub.repository(NAME).fetch(["twin.fp16.safetensors"])
    assert not list(cache.iterdir())
    assert hub.repository(NAME).fetch(["twin.fp16.safetensors"]).is_dir()


def test_without_a_network_the_cache_serves_and_what_is_missing_is_named(filled, monkeypatch):
    hub.repository(NAME).fetch(["config.json"])
    offline(monkeypatch)
    assert hub.repository(NAME).fetch(["config.json"]).is_dir()
    with pytest.raises(InputError) as caught:
        hub.repository(NAME).fetch(["config.json", "README.md", "twin.fp16.safetensors"])
    cache = Path(constants.HF_HUB_CACHE) / "models--someone--something"
    assert str(caught.value) == (
        f"{NAME} cannot be fetched: HF_HUB_OFFLINE is set. In the hub's cache, {cache}, there is "
        "no README.md, twin.fp16.safetensors."
    )


def test_a_hub_that_is_not_there_is_told_from_one_that_says_no(filled):
    filled.gated.add(NAME)
    with pytest.raises(InputError) as caught:
        hub.repository(NAME).fetch(["config.json"])
    assert f"accept its licence at https://huggingface.co/{NAME}, and log in" in str(caught.value)
    with pytest.raises(InputError, match="the hub has no such model, or it is private"):
        hub.repository("nobody/nothing")
    with pytest.raises(InputError, match="the hub has no such revision of it"):
        hub.repository(f"{NAME}@v9")
    with pytest.raises(InputError, match=r"on the hub has no other\.json"):
        hub.repository(NAME).fetch(["other.json"])
    filled.down.add(NAME)
    with pytest.raises(InputError, match="the hub could not be reached"):
        hub.repository(NAME)


def test_a_full_disk_is_noticed_before_anything_is_fetched(filled, monkeypatch):
    usage = hub.shutil.disk_usage("/")
    monkeypatch.setattr(hub.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(InputError, match="HF_HUB_CACHE names another place"):
        hub.repository(NAME).fetch(["twin.fp16.safetensors"])
    assert filled.bytes_sent() == 0


def test_a_cache_that_cannot_be_written_is_named(filled, tmp_path):
    (tmp_path / "hub").write_text("a file")
    with pytest.raises(InputError, match=r"the hub's cache cannot be written .*hub/models--"):
        hub.repository(NAME).fetch(["config.json"])
