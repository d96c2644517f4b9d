import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image

from omgsr_jax.data.images import DamagedImageError, decode_image
from omgsr_jax.data.sources import open_sources, pack
from omgsr_jax.errors import InputError
from tests.data.photos import synthetic_photo

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "make_array_record.py"


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources") / "photos"
    folder.mkdir()
    for i in range(5):
        Image.fromarray(synthetic_photo(80, 90, i)).save(folder / f"{i}.png")
    return folder


def test_packing_keeps_every_file_and_its_name(photos, tmp_path):
    largest = max(path.stat().st_size for path in photos.iterdir())
    summary = pack([str(photos)], tmp_path / "packed", shard_bytes=int(1.2 * largest))
    assert summary.written == 5
    assert len(summary.shards) == 3  # two images fill a shard
    source = open_sources([str(tmp_path / "packed")])
    assert [source[i][0] for i in range(len(source))] == [f"photos/{i}.png" for i in range(5)]
    assert source[3][1] == (photos / "3.png").read_bytes()
    # A shard by itself is a source too.
    assert len(open_sources([summary.shards[0]])) == 2


def test_sources_are_joined_in_order(photos, tmp_path):
    pack([str(photos)], tmp_path / "packed")
    (tmp_path / "list.txt").write_text(f"{photos}/2.png\n")
    source = open_sources([str(tmp_path / "list.txt"), str(tmp_path / "packed"), str(photos)])
    assert len(source) == 11
    assert [source[i][0][-12:] for i in (0, 1, 5, 6)] == [
        f"{photos}/2.png"[-12:],
        "photos/0.png",
        "photos/4.png",
        f"{photos}/0.png"[-12:],
    ]


def test_damaged_images_stay_out_of_the_shards(photos, tmp_path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    data = (photos / "0.png").read_bytes()
    (folder / "good.png").write_bytes(data)
    (folder / "cut.png").write_bytes(data[:1000])
    summary = pack([str(folder)], tmp_path / "packed")
    assert summary.written == 1
    assert "cut.png is damaged" in summary.damaged[0]
    assert list(os.listdir(tmp_path / "packed")) == ["images-00000.array_record"]


def test_existing_shards_are_not_mixed_with_new_ones(photos, tmp_path):
    pack([str(photos)], tmp_path / "packed")
    with pytest.raises(InputError, match="holds shards already"):
        pack([str(photos)], tmp_path / "packed")


def test_what_is_no_array_record_is_explained(photos, tmp_path):
    [shard] = pack([str(photos)], tmp_path).shards
    whole = Path(shard).read_bytes()
    for name, content in {
        "short": b"hello",
        "junk": b"hello" * 50_000,
        "cut": whole[:-100],
    }.items():
        path = tmp_path / f"{name}.array_record"
        path.write_bytes(content)
        with pytest.raises(InputError, match=f"{name}.array_record cannot be opened"):
            open_sources([str(path)])
    with pytest.raises(InputError, match=r"gone\.array_record cannot be opened.*No such file"):
        open_sources([str(tmp_path / "gone.array_record")])


def test_a_damaged_record_is_named_and_the_others_read(photos, tmp_path):
    [shard] = pack([str(photos)], tmp_path).shards
    content = bytearray(Path(shard).read_bytes())
    start = content.index(b"photos/2.png") + 2000
    content[start : start + 50] = bytes(50)
    Path(shard).write_bytes(content)
    source = open_sources([shard])
    with pytest.raises(DamagedImageError, match=r"record 2 of .*images-00000.array_record cannot"):
        source[2]
    np.testing.assert_array_equal(decode_image(source[3][1]), synthetic_photo(80, 90, 3))


def test_records_of_another_kind_are_explained(tmp_path):
    path = str(tmp_path / "other.array_record")
    writer = ArrayRecordWriter(path, "group_size:1")
    writer.write(b"tf.Example or whatever")
    writer.close()
    with pytest.raises(DamagedImageError, match=r"pack the shard with scripts/make_array_record"):
        open_sources([path])[0]


def test_no_sources_is_an_error():
    with pytest.raises(InputError, match="name a folder"):
        open_sources([])


def test_the_script_packs_and_reports(photos, tmp_path):
    def run(*arguments):
        command = [sys.executable, str(SCRIPT), *map(str, arguments)]
        environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[1])}
        return subprocess.run(command, capture_output=True, text=True, env=environment)

    done = run(photos, "--out", tmp_path / "packed")
    assert done.returncode == 0, done.stderr
    assert "5 images in 1 shards" in done.stdout
    again = run(photos, "--out", tmp_path / "packed")
    assert again.returncode == 2
    assert "error: " in again.stderr
    assert "holds shards already" in again.stderr
