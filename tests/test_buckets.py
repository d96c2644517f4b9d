"""Models and images in buckets. A stand-in for Google's, on loopback, answers."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from omgsr_jax import assets, buckets, converted, files
from omgsr_jax.data import DataConfig, make_pipeline, open_sources
from omgsr_jax.errors import InputError
from tests.data.photos import synthetic_photo
from tests.hostile.judge import command

pytestmark = pytest.mark.slow
_NANO = assets.MODELS["nano"]


@pytest.fixture(autouse=True)
def nothing_local(tmp_path, monkeypatch):
    """No file comes into being under a name such as gs:."""
    monkeypatch.chdir(tmp_path)
    yield
    assert not [path for path in Path().rglob("*") if ":" in path.name]


def test_a_model_in_a_bucket_is_the_model_on_disk(fake_buckets, bucket):
    fake_buckets.upload(_NANO, bucket, "models/nano")
    there = f"gs://{bucket}/models/nano"
    assert converted.read_card(there) == converted.read_card(_NANO)
    local, remote = converted.by_name_on_host(_NANO), converted.by_name_on_host(there)
    assert local.keys() == remote.keys()
    for name, array in local.items():
        np.testing.assert_array_equal(remote[name], array)
    told, of_local = command("info", there), command("info", _NANO)
    assert told.code == 0
    assert told.out.splitlines()[1:] == of_local.out.splitlines()[1:]


def test_a_model_is_written_into_a_bucket_whole_or_not_at_all(fake_buckets, bucket):
    params = converted.by_name_on_host(_NANO)
    card = converted.read_card(_NANO)
    there = f"gs://{bucket}/mine"
    converted.write(there, card, params)
    for name, array in converted.by_name_on_host(there).items():
        np.testing.assert_array_equal(array, params[name])
    assert converted.digest(there)
    with pytest.raises(InputError, match="exists already"):
        converted.write(there, card, params)
    fake_buckets.full.add(bucket)
    with pytest.raises(InputError, match=rf"gs://{bucket}/other could not be written"):
        converted.write(f"gs://{bucket}/other", card, params)
    assert fake_buckets.names(bucket, "other") == []


def test_a_damaged_model_in_a_bucket_is_a_sentence(fake_buckets, bucket):
    fake_buckets.upload(_NANO, bucket, "nano")
    cut = max(fake_buckets.names(bucket, "nano/params/"), key=len)
    fake_buckets.put(bucket, cut, b"cut")
    answer = command("info", f"gs://{bucket}/nano")
    assert answer.code == 1
    assert answer.reason.startswith(f"omgsr info: gs://{bucket}/{cut} is damaged: it has 3 bytes, ")


def test_upscaling_with_a_model_in_a_bucket_changes_nothing(fake_buckets, bucket, tmp_path):
    fake_buckets.upload(_NANO, bucket, "nano")
    Image.fromarray(synthetic_photo(24, 32)).save(tmp_path / "photo.png")
    for model, out in ((str(_NANO), "local.png"), (f"gs://{bucket}/nano", "remote.png")):
        answer = command("upscale", tmp_path / "photo.png", "-o", tmp_path / out, "--model", model)
        assert answer.code == 0, answer.err
    assert (tmp_path / "local.png").read_bytes() == (tmp_path / "remote.png").read_bytes()


def test_training_images_in_a_bucket_are_those_on_disk(fake_buckets, bucket, tmp_path):
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for i, name in enumerate(("a.png", "b.png", "more/c.png")):
        Image.fromarray(synthetic_photo(70, 70, i)).save(folder / name)
    (folder / "notes.md").write_text("not an image")
    fake_buckets.upload(folder, bucket, "photos")
    there = f"gs://{bucket}/photos"
    fake_buckets.put(bucket, "list.txt", f"photos/a.png\n{there}/more/c.png\n".encode())
    told = []
    names = [open_sources([there], told.append)[i][0] for i in range(3)]
    assert names == [f"{there}/{name}" for name in ("a.png", "b.png", "more/c.png")]
    assert "1 .md" in told[0]
    listed = open_sources([f"gs://{bucket}/list.txt"])
    assert [listed[i][0] for i in range(2)] == [names[0], names[2]]

    def batch(source):
        config = DataConfig((source,), resolution=64, batch_size=3, workers=0)
        return next(iter(make_pipeline(config, process_index=0, process_count=1)))

    local, remote = batch(str(folder)), batch(there)
    np.testing.assert_array_equal(local["hr"], remote["hr"])
    np.testing.assert_array_equal(local["lr"], remote["lr"])


def test_shards_in_a_bucket_are_a_sentence(fake_buckets, bucket):
    fake_buckets.put(bucket, "packed/images-00000.array_record", b"...")
    with pytest.raises(InputError, match="mount the bucket"):
        open_sources([f"gs://{bucket}/packed"])


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("gs://nowhere/model", "there is no bucket gs://nowhere, or you may not see it"),
        ("gs://closed/model", "gs://closed cannot be used: Anonymous caller does not have"),
        ("ftp://host/model", "ftp://host is no address of a bucket, which begins with gs://"),
        ("gs:///model", "gs:// is no address of a bucket"),
    ],
)
def test_a_bucket_that_cannot_be_used_is_one_sentence(fake_buckets, address, sentence):
    fake_buckets.buckets["closed"] = {}
    fake_buckets.closed.add("closed")
    answer = command("info", address)
    assert answer.code == 1
    assert answer.err.startswith(f"omgsr info: {sentence}"), answer.err
    assert answer.err.count("\n") == 1
    if "closed" in address:
        assert "gcloud auth application-default login" in answer.err


def test_without_gcsfs_the_sentence_says_what_to_install(monkeypatch):
    def missing():
        raise ImportError("Please install gcsfs to access Google Storage")

    found = SimpleNamespace(Path=lambda address: SimpleNamespace(stat=missing))
    monkeypatch.setattr(buckets, "epath", found)
    with pytest.raises(InputError, match=r"pip install 'omgsr-jax\[gcs\]'"):
        buckets.require("gs://not-asked-before/model")


def test_a_block_that_fails_uploads_nothing(fake_buckets, bucket):
    def write_half():
        with files.atomic(f"gs://{bucket}/file") as file:
            file.write(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_half()
    assert fake_buckets.names(bucket) == []
    files.write_text(f"gs://{bucket}/file", "whole")
    assert fake_buckets.buckets[bucket]["file"].content == b"whole"
