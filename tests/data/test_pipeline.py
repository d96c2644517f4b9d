import dataclasses
import json

import jax
import numpy as np
import pytest
from PIL import Image

from omgsr_jax.data.config import DataConfig
from omgsr_jax.data.decoded import DecodedImages
from omgsr_jax.data.images import decode_image
from omgsr_jax.data.pipeline import (
    DamagedImageWarning,
    TooManyDamagedError,
    make_pipeline,
    prepare,
    to_device,
)
from omgsr_jax.data.sources import open_sources, pack
from omgsr_jax.errors import InputError
from tests.data.photos import synthetic_photo

COUNT = 12


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline") / "photos"
    folder.mkdir()
    for i in range(COUNT):
        Image.fromarray(synthetic_photo(90 + i, 110, i)).save(folder / f"{i:02d}.png")
    return folder


def config(source, **changes):
    plain = DataConfig((str(source),), resolution=64, batch_size=4, workers=0)
    return dataclasses.replace(plain, **changes)


def pipeline(config, process_index=None, process_count=None, *, seed=5, shuffle=True):
    return make_pipeline(
        config, seed, shuffle=shuffle, process_index=process_index, process_count=process_count
    )


def take(batches, count):
    """The pairs of the next `count` batches as [(id, lr bytes, hr bytes)]."""
    pairs = []
    for _ in range(count):
        batch = next(batches)
        pairs += [
            (name, batch["lr"][i].tobytes(), batch["hr"][i].tobytes())
            for i, name in enumerate(batch["id"])
        ]
    return pairs


@pytest.fixture(scope="module")
def expected(photos):
    """Two epochs and a bit, in one process without workers."""
    return take(iter(pipeline(config(photos))), 7)


def test_batches_are_nhwc_bytes(photos):
    batch = next(iter(pipeline(config(photos))))
    assert set(batch) == {"lr", "hr", "id"}
    for key in ("lr", "hr"):
        assert batch[key].shape == (4, 64, 64, 3)
        assert batch[key].dtype == np.uint8
        assert batch[key].min() < 64
        assert batch[key].max() > 191
    assert len(batch["id"]) == 4
    assert batch["id"][0].endswith(".png")


def test_low_quality_images_show_what_the_high_quality_ones_show(photos):
    batch = next(iter(pipeline(config(photos, batch_size=12))))
    lr, hr = (batch[key].mean(axis=3).reshape(12, -1) for key in ("lr", "hr"))
    match = np.corrcoef(lr, hr)[:12, 12:]
    assert (match.argmax(axis=1) == np.arange(12)).all()
    assert match.diagonal().min() > 0.4


@pytest.mark.parametrize(("workers", "size"), [(1, 4), (4, 14)])
def test_workers_change_nothing(photos, expected, workers, size):
    """They stack eight examples at most: 14 are two parts of 7."""
    batches = iter(pipeline(config(photos, workers=workers, batch_size=size)))
    try:
        assert take(batches, 28 // size) == expected
    finally:
        batches.close()


def test_two_processes_share_the_batches_of_one(photos, expected):
    streams = [iter(pipeline(config(photos), i, 2)) for i in range(2)]
    for step in range(7):
        both = [pair for stream in streams for pair in take(stream, 1)]
        assert len(both) == 4
        assert set(both) == set(expected[4 * step : 4 * step + 4])


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_an_epoch_holds_every_image_once_over_all_processes(photos, processes):
    names = []
    for index in range(processes):
        batches = iter(pipeline(config(photos, batch_size=processes), index, processes))
        names += [pair[0] for pair in take(batches, COUNT // processes)]
    assert len(names) == len(set(names)) == COUNT


def test_epochs_differ_in_order_crop_and_degradation(expected):
    first, second = expected[:COUNT], expected[COUNT : 2 * COUNT]
    assert [pair[0] for pair in first] != [pair[0] for pair in second]
    by_name = {pair[0]: pair for pair in second}
    assert all(by_name[pair[0]][1:] != pair[1:] for pair in first)


@pytest.mark.parametrize(
    ("room", "decoded"), [(2**28, COUNT), (COUNT * 95 * 110 * 3, 2 * COUNT - 6), (0, 2 * COUNT)]
)
def test_images_that_fit_the_memory_are_decoded_once(photos, monkeypatch, room, decoded):
    names = []

    def counting(data, name):
        names.append(name)
        return decode_image(data, name)

    monkeypatch.setattr("omgsr_jax.data.decoded.decode_image", counting)
    images = DecodedImages(open_sources([str(photos)]), room)
    once, again = ([images[i] for i in range(COUNT)] for _ in range(2))
    assert len(names) == decoded
    for (name, image), (second, other), path in zip(
        once, again, sorted(photos.iterdir()), strict=True
    ):
        assert name == second == str(path)
        assert (image == other).all()
        assert (image == np.asarray(Image.open(path))).all()


def test_the_seed_decides(photos, expected):
    assert take(iter(pipeline(config(photos))), 1) == expected[:4]
    assert take(iter(pipeline(config(photos), seed=6)), 1) != expected[:4]
    unshuffled = take(iter(pipeline(config(photos), shuffle=False)), 3)
    assert [pair[0] for pair in unshuffled] == sorted(pair[0] for pair in unshuffled)


def test_shards_give_what_the_folder_gives(photos, expected, tmp_path):
    pack([str(photos)], tmp_path / "packed", shard_bytes=100_000)
    pairs = take(iter(pipeline(config(tmp_path / "packed"))), 7)
    assert [pair[1:] for pair in pairs] == [pair[1:] for pair in expected]


@pytest.mark.parametrize(("before", "after"), [(0, 0), (2, 0), (0, 2)])
def test_a_saved_iterator_resumes_in_mid_epoch_with_any_workers(photos, expected, before, after):
    batches = iter(pipeline(config(photos, workers=before)))
    take(batches, 2)
    state = json.loads(json.dumps(batches.get_state()))
    take(batches, 1)  # what was read ahead after saving does not count
    batches.close()
    resumed = iter(pipeline(config(photos, workers=after)))
    resumed.set_state(state)
    assert take(resumed, 5) == expected[8:]
    resumed.close()


@pytest.mark.parametrize("counts", [(2, 1, 4), (1, 4, 2), (4, 2, 1)])
def test_the_position_is_that_of_all_processes(photos, expected, counts):
    """Each number of processes goes on where the one before stopped: none twice, none missing."""
    states, taken = [None], []
    for count, batches in zip(counts, (2, 1, 4), strict=True):
        streams = [iter(pipeline(config(photos), i, count)) for i in range(count)]
        if taken:
            for stream in streams:
                stream.set_state(json.loads(json.dumps(states[0])))
        for _ in range(batches):
            parts = [take(stream, 1) for stream in streams]
            taken += [pair for turn in zip(*parts, strict=True) for pair in turn]
        states = [stream.get_state() for stream in streams]
        assert all(state == states[0] for state in states)
    assert taken == expected


def test_other_data_cannot_be_resumed(photos, tmp_path):
    state = iter(pipeline(config(photos))).get_state()
    for i in range(3):
        Image.fromarray(synthetic_photo(70, 70, i)).save(tmp_path / f"{i}.png")
    with pytest.raises(InputError, match="examples = 12, this one has 3"):
        iter(pipeline(config(tmp_path))).set_state(state)
    with pytest.raises(InputError, match="seed = 5, this one has 6"):
        iter(pipeline(config(photos), seed=6)).set_state(state)


def test_batches_reach_the_devices_divided_as_asked(photos, expected):
    mesh = jax.make_mesh((len(jax.devices()),), ("data",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    batches = iter(to_device(pipeline(config(photos)), sharding))
    batch = next(batches)
    assert batch["lr"].sharding == batch["hr"].sharding == sharding
    assert batch["id"] == [pair[0] for pair in expected[:4]]
    assert np.asarray(batch["lr"][2]).tobytes() == expected[2][1]


@pytest.fixture
def mostly_good(photos, tmp_path):
    """The photos and a truncated one."""
    folder = tmp_path / "mostly_good"
    folder.mkdir()
    for path in photos.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "cut.png").write_bytes((photos / "00.png").read_bytes()[:2000])
    return folder


def test_a_damaged_image_is_replaced_with_a_warning_that_names_it(mostly_good):
    tolerant = config(mostly_good, batch_size=1, damaged_limit=0.1)
    batches = iter(pipeline(tolerant))
    with pytest.warns(DamagedImageWarning, match=r"left out: .*cut\.png is damaged"):
        names = [pair[0] for pair in take(batches, COUNT + 1)]
    assert len(set(names)) == COUNT  # one of them stands in
    # Three epochs, one damaged image in each: the count starts anew, so the run goes on.
    with pytest.warns(DamagedImageWarning) as told:
        take(batches, 2 * (COUNT + 1))
    assert len(told) == 2


def test_nothing_but_damaged_images_stops_the_run_whatever_the_limit(tmp_path):
    (tmp_path / "cut.png").write_bytes(b"no image")
    batches = iter(pipeline(config(tmp_path, damaged_limit=1.0)))
    with pytest.warns(DamagedImageWarning), pytest.raises(TooManyDamagedError, match="cut"):
        take(batches, 1)


def test_a_damaged_image_shifts_nothing_between_processes(mostly_good):
    tolerant = config(mostly_good, damaged_limit=0.5)
    with pytest.warns(DamagedImageWarning):
        alone = take(iter(pipeline(tolerant)), 7)
    with pytest.warns(DamagedImageWarning):
        parts = [take(iter(pipeline(tolerant, i, 2)), 7) for i in range(2)]
    assert [pair for turn in zip(*parts, strict=True) for pair in turn] == alone


def test_a_damaged_image_shifts_nothing_between_workers(mostly_good):
    tolerant = config(mostly_good, damaged_limit=0.1)
    with pytest.warns(DamagedImageWarning):
        alone = take(iter(pipeline(tolerant)), 4)
    batches = iter(pipeline(dataclasses.replace(tolerant, workers=2)))
    with pytest.warns(DamagedImageWarning):
        assert take(batches, 4) == alone
    batches.close()


def test_too_many_damaged_images_stop_the_run(mostly_good):
    batches = iter(pipeline(config(mostly_good)))  # 1 of 13 is more than 1%
    with (
        pytest.warns(DamagedImageWarning),
        pytest.raises(TooManyDamagedError, match=r"1 damaged .* more than 1\.0% of .* 13; .*cut"),
    ):
        take(batches, 4)


@pytest.mark.parametrize(("height", "width"), [(20, 200), (200, 40), (30, 30), (64, 64), (1, 7)])
def test_small_images_are_mirrored_to_the_size_of_the_crop(height, width):
    image = synthetic_photo(max(height, 8), max(width, 8))[:height, :width]
    rng = np.random.default_rng(0)
    for _ in range(20):
        crop = prepare(image, "photo.png", 64, rng)
        assert crop.shape == (64, 64, 3)
        pixels = {tuple(pixel) for pixel in image.reshape(-1, 3)}
        assert {tuple(pixel) for pixel in crop.reshape(-1, 3)} <= pixels


def test_mirroring_is_numpys_reflect_padding():
    image = synthetic_photo(20, 30)
    padded = np.pad(image, ((44, 44), (34, 34), (0, 0)), mode="reflect")
    windows = {
        padded[y : y + 64, x : x + 64][:, ::flip].tobytes()
        for y in range(45)
        for x in range(35)
        for flip in (1, -1)
    }
    crops = {prepare(image, "", 64, np.random.default_rng(i)).tobytes() for i in range(40)}
    assert len(crops) > 30
    assert crops <= windows


def test_crops_reach_every_border_and_half_are_flipped():
    columns = np.broadcast_to(np.arange(70, dtype=np.uint8)[None, :, None], (64, 70, 3))
    crops = [prepare(columns, "", 64, np.random.default_rng(i))[0, :, 0] for i in range(400)]
    flipped = [crop[0] > crop[-1] for crop in crops]
    assert 0.4 < np.mean(flipped) < 0.6
    assert {min(crop) for crop in crops} == set(range(7))


def test_ffhq_faces_are_resized_as_a_whole():
    face = synthetic_photo(256, 256)
    whole = np.asarray(Image.fromarray(face).resize((64, 64), Image.Resampling.LANCZOS))
    crop = prepare(face, "FFHQ/00001.png", 64, np.random.default_rng(0))
    assert any(np.array_equal(crop, candidate) for candidate in (whole, whole[:, ::-1]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"degradation": 256}, "degradation is 256, expected one of 512, 1024"),
        ({"resolution": 66}, "not a multiple of the degradation's scale 4"),
        ({"degrade_on": "gpu"}, '"host" or "device", not \'gpu\''),
    ],
)
def test_impossible_configs_are_refused(photos, change, message):
    with pytest.raises(InputError, match=message):
        config(photos, **change)


def test_a_batch_must_divide_among_the_processes(photos):
    with pytest.raises(InputError, match="batch of 4 cannot be divided among 3"):
        pipeline(config(photos), 0, 3)
