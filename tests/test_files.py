"""Files: nothing that is read is lost, nothing is half-written, and every name has an answer."""

import contextlib
import cProfile
import os
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from omgsr_jax import cli, files
from omgsr_jax.data import DataConfig, degrade_folder, list_images, make_pipeline, read_image
from omgsr_jax.errors import InputError
from omgsr_jax.evaluation import find_pairs, restoring
from omgsr_jax.files import exif_bombs
from omgsr_jax.inference import folder
from omgsr_jax.inference.folder import upscale_files
from omgsr_jax.inference.jobs import Job, plan
from omgsr_jax.inference.results import Upscaled

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)


def save(path: Path, pixels: np.ndarray = PIXELS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def write_half(path: Path, stop: BaseException) -> None:
    with files.atomic(path) as file:
        file.write(b"half")
        raise stop


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path):
    files.write_bytes(tmp_path / "a", b"old")
    for stop in (KeyboardInterrupt(), OSError(28, "No space left on device")):
        with pytest.raises((KeyboardInterrupt, InputError)):
            write_half(tmp_path / "a", stop)
    assert contents(tmp_path) == {"a": b"old"}


def test_a_failed_write_names_the_file(tmp_path, monkeypatch):
    def full(path, mode):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("omgsr_jax.files.writing.open", full, raising=False)
    with pytest.raises(InputError, match="a cannot be written: No space left on device"):
        files.write_bytes(tmp_path / "a", b"new")
    assert contents(tmp_path) == {}


def test_only_named_formats_are_opened(tmp_path):
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")
    with pytest.raises(files.DamagedImageError, match=r"a\.png is not an image that can be read"):
        read_image(tmp_path / "a.png")


def test_a_pipe_a_device_and_a_loop_of_links_are_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "null.png").symlink_to("/dev/null")
    for name, message in (
        ("pipe.png", "is a pipe, a socket or a device, not an image"),
        ("null.png", "is a pipe, a socket or a device, not an image"),
        ("loop.png", "cannot be read: Too many levels of symbolic links"),
    ):
        for read in (read_image, files.header, files.read_bytes):
            with pytest.raises(files.DamagedImageError, match=f"{name} {message}"):
                read(tmp_path / name)


def test_a_loop_of_folders_counts_an_image_once(tmp_path):
    save(tmp_path / "photos" / "deep" / "a.png")
    (tmp_path / "photos" / "deep" / "up").symlink_to(tmp_path / "photos")
    (tmp_path / "photos" / "again").symlink_to("deep")
    (tmp_path / "photos" / "above").symlink_to(tmp_path)
    assert list_images(tmp_path / "photos") == [str(tmp_path / "photos" / "deep" / "a.png")]


def test_linked_folders_are_listed(tmp_path):
    save(tmp_path / "elsewhere" / "a.png")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "link").symlink_to(tmp_path / "elsewhere")
    assert list_images(tmp_path / "photos") == [str(tmp_path / "photos" / "link" / "a.png")]


def test_what_is_passed_over_is_mentioned_once_with_counts(tmp_path):
    save(tmp_path / "a.png")
    for name in ("b.heic", "c.HEIC", "d.cr2", "e.gif", "f"):
        (tmp_path / name).touch()
    said = []
    plan([str(tmp_path)], tmp_path / "out", notify=said.append)
    assert len(said) == 1
    for part in ("2 .heic", "1 .cr2", "1 .gif", "1 without a suffix", "expected .png"):
        assert part in said[0]
    said.clear()
    degrade_folder(tmp_path, tmp_path.parent / "pairs", notify=said.append)
    assert ["2 .heic" in text for text in said] == [True]


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("single", [False, True])
def test_degrading_replaces_no_photograph_that_it_reads(tmp_path, linked, single):
    photos = tmp_path / "photos" if linked else tmp_path / "X" / "hr"
    photo = save(photos / "a.png")
    if linked:
        (tmp_path / "X").mkdir()
        (tmp_path / "X" / "hr").symlink_to(photos)
    before = contents(photos)
    with pytest.raises(InputError, match=r"lies inside|would be overwritten"):
        degrade_folder(photo if single else photos, tmp_path / "X")
    assert contents(photos) == before
    assert not (tmp_path / "X" / "lr").exists()


def test_scoring_replaces_no_image_that_it_reads(tmp_path):
    made = save(tmp_path / "out" / "a.png").parent
    save(tmp_path / "lr" / "a.png", PIXELS[::4, ::4])
    before = contents(made)
    for hr, reads in ((made, ()), (save(tmp_path / "hr" / "a.png").parent, (made,))):
        with pytest.raises(InputError, match="would be overwritten"):
            restoring.restore_inputs("nano", tmp_path / "lr", hr, made, reads=reads)
    assert contents(made) == before


def test_no_input_is_replaced_by_the_result_of_another(tmp_path):
    inputs = [str(save(tmp_path / "x" / "a.png")), str(save(tmp_path / "y" / "a.png"))]
    with pytest.raises(InputError, match="is an input and would be overwritten"):
        plan(inputs, tmp_path / "y", overwrite_input=True)
    [job] = plan(inputs[1:], tmp_path / "y", overwrite_input=True)
    assert job == Job(tmp_path / "y" / "a.png", tmp_path / "y" / "a.png")


def test_an_input_reached_through_links_is_not_replaced(tmp_path):
    photo = save(tmp_path / "photos" / "a.png")
    (tmp_path / "link").symlink_to("photos")
    (tmp_path / "b.png").symlink_to(photo)
    for inputs, out in (
        ([photo], tmp_path / "link"),
        ([photo], tmp_path / "b.png"),
        ([tmp_path / "b.png"], photo),
    ):
        with pytest.raises(InputError, match="would be overwritten"):
            plan(list(map(str, inputs)), out)


def test_comparisons_replace_no_input_no_result_and_no_other_comparison(tmp_path):
    for name in ("a.png", "a.webp", "a.compare.png"):
        save(tmp_path / "in" / name)
    jobs = plan([str(tmp_path / "in")], tmp_path / "out", compare=True)
    written = [path for job in jobs for path in (job.goal, job.comparison)]
    assert len(set(written)) == 6
    assert {job.goal.name for job in jobs} == {"a.png", "a.webp", "a.compare.png"}
    inputs = [str(tmp_path / "in" / name) for name in ("a.png", "a.compare.png")]
    jobs = plan(inputs, tmp_path / "in", format="jpg", compare=True)
    assert jobs[0].comparison == tmp_path / "in" / "a.jpg.compare.png"


@pytest.mark.parametrize("name", ["x.gif", "x.pdf", "x.JXL", "x.cr2"])
def test_a_suffix_that_cannot_be_written_is_no_folder(tmp_path, name):
    photo = str(save(tmp_path / "a.png"))
    suffix = name[1:].lower()
    with pytest.raises(InputError, match=rf"{name}: cannot write {suffix}; expected one of \.png"):
        plan([photo], tmp_path / name)
    assert plan([photo], f"{tmp_path / name}/")[0].goal == tmp_path / name / "a.png"
    (tmp_path / name).mkdir()
    assert plan([photo], tmp_path / name)[0].goal == tmp_path / name / "a.png"
    assert plan([photo], tmp_path / "v1.2")[0].goal == tmp_path / "v1.2" / "a.png"


def test_one_name_for_several_results_is_refused(tmp_path):
    photos = [str(save(tmp_path / name)) for name in ("a.png", "b.png")]
    with pytest.raises(InputError, match="names one image, and there are 2 inputs"):
        plan(photos, tmp_path / "x.png")


def test_names_that_are_not_utf8_or_very_long_stop_no_folder(tmp_path):
    good = save(tmp_path / "in" / "good.png")
    odd = os.fsdecode(b"od\xffd.png")
    for name in (odd, "n" * 250 + ".png"):
        (tmp_path / "in" / name).write_bytes(good.read_bytes())
    (tmp_path / "in" / "loop.png").symlink_to("loop.png")
    os.mkfifo(tmp_path / "in" / "pipe.png")
    summary = degrade_folder(tmp_path / "in", tmp_path / "pairs")
    assert summary.written == 3
    assert len(summary.failed) == 2
    assert sorted(os.listdir(tmp_path / "pairs" / "hr")) == sorted(
        [odd, "good.png", "n" * 250 + ".png"]
    )
    (tmp_path / "list.txt").write_bytes(b"in/od\xffd.png\n")
    assert list_images(tmp_path / "list.txt") == [str(tmp_path / "in" / odd)]
    jobs = plan([str(tmp_path / "in")], tmp_path / "out", format="jpeg", compare=True)
    assert len(jobs) == 5
    long = next(job for job in jobs if job.source.name.startswith("nnn"))
    with pytest.raises(InputError, match="cannot be written: File name too long"):
        files.write_bytes(long.comparison, b"")


def calls(function, *args, **options) -> int:
    """Of functions: what grows with the square of something shows, and no clock is asked."""
    profile = cProfile.Profile()
    profile.runcall(function, *args, **options)
    return sum(entry.callcount for entry in profile.getstats())


def test_a_folder_four_times_as_long_takes_four_times_as_long_to_plan(tmp_path):
    few, many = tmp_path / "few", tmp_path / "many"
    for photos, count in ((few, 200), (many, 800)):
        photos.mkdir()
        for number in range(count):
            (photos / f"{number}.png").touch()
    first, second = (
        calls(plan, [str(photos)], tmp_path / "out", format="jpg", compare=True)
        for photos in (few, many)
    )
    assert second < 4.2 * first
    first, second = (
        calls(plan, [str(few / str(i) / "a.png") for i in range(count)], tmp_path / "out")
        for count in (200, 800)  # files of one name, which need not exist
    )
    assert second < 4.2 * first


def test_skipping_what_exists_and_looking_at_headers_is_linear_and_bounded(tmp_path, monkeypatch):
    done = save(tmp_path / "a.png")
    model = SimpleNamespace(batch=1)

    def skipped(count):
        jobs = [Job(Path(f"{number}.png"), done) for number in range(count)]
        reports = list(upscale_files(model, jobs, None, skip_existing=True))
        assert [report.status for report in reports] == ["skipped"] * count

    assert calls(skipped, 800) < 4.2 * calls(skipped, 200)
    looked = []
    monkeypatch.setattr(folder, "_peek", lambda path: looked.append(path))
    jobs = [Job(Path(f"{number}.png"), tmp_path / f"{number}") for number in range(10_000)]
    first = next(upscale_files(model, jobs, None))
    assert first.status == "failed"  # it is not there
    assert 2000 <= len(looked) < 2020  # and the headers of those that are read next
    assert looked[1999] == Path("9995.png")  # from all over the folder


def test_a_result_is_written_behind_its_comparison(tmp_path, monkeypatch):
    """So that a run that was killed between the two is not skipped as done."""
    written = []
    monkeypatch.setattr(folder.images, "write", lambda path, _: written.append(path.name) or ())
    restored = SimpleNamespace(restore=lambda batch, *_: [Upscaled(p, p.size) for p in batch])
    model = SimpleNamespace(batch=1, canvas=lambda size, _: size, **vars(restored))
    job = Job(save(tmp_path / "a.png"), tmp_path / "b.png", tmp_path / "b.compare.png")
    (report,) = upscale_files(model, [job], None)
    assert report.status == "done"
    assert written == ["b.compare.png", "b.png"]


def test_every_command_mentions_what_it_passes_over(tmp_path, capsys):
    """Upscaling and degrading: above. Evaluation, and training data with the mid-timestep's."""
    for name in ("sr", "hr"):
        save(tmp_path / name / "a.png")
        (tmp_path / name / "b.cr2").touch()
    with pytest.warns(files.LeftOutWarning, match=r"passed over in .*sr: 1 \.cr2"):
        find_pairs(tmp_path / "sr", tmp_path / "hr")
    config = DataConfig(sources=(str(tmp_path / "hr"),), resolution=8, batch_size=1)
    with pytest.warns(files.LeftOutWarning, match=r"passed over in .*hr: 1 \.cr2") as said:
        make_pipeline(config, process_index=0, process_count=1)
    assert len(said) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of several processes one says it
        make_pipeline(config, process_index=1, process_count=1)
    assert cli.main(["eval", "--sr", str(tmp_path / "sr"), "--hr", str(tmp_path / "none")]) == 1
    assert "omgsr eval: passed over in " in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [
        ["degrade", "in", "-o"],
        ["eval", "--sr", "in", "--hr", "in", "--out"],
        ["demo", "-o"],
        ["timestep", "--model", "nano", "--data", "in", "--out"],
    ],
    ids=lambda command: command[0],
)
def test_an_output_folder_is_not_called_like_an_image(tmp_path, monkeypatch, capsys, command):
    save(tmp_path / "in" / "a.png")
    monkeypatch.chdir(tmp_path)
    with contextlib.suppress(SystemExit):
        assert cli.main([*command, "x.gif"]) == 1
    expected = "x.gif is called like an image; expected the name of a folder"
    assert expected in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["in"]


def test_an_opener_may_say_that_there_is_no_exif():
    image = Image.new("RGB", (2, 2))
    image.info["exif"] = None  # as pillow-heif does
    exif_bombs.refuse(image)
