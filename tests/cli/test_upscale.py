"""`omgsr upscale` on real files: where results go, and what becomes of files that are no good."""

import json
import os
import signal
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from omgsr_jax import __version__
from omgsr_jax.cli import main
from omgsr_jax.inference import folder
from tests.inference.conftest import photo

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(model_64, upscaler, monkeypatch, capsys):
    """Runs the command with the model that is loaded already; returns status, stdout, stderr."""
    monkeypatch.setattr("omgsr_jax.inference.loading.load", lambda *_, **__: upscaler)

    def run(*args: object) -> tuple[int, str, str]:
        status = main(["upscale", *map(str, args), "--model", str(model_64)])
        return status, *capsys.readouterr()

    return run


def save(path: Path, height: int = 16, width: int = 16, seed: int = 0, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(photo(height, width, seed=seed)).save(path, **options)
    return path


def names(out: Path) -> list[str]:
    return sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())


def test_one_file_to_one_file(run, tmp_path):
    status, stdout, _ = run(save(tmp_path / "a.jpg"), "-o", tmp_path / "b.png", "--scale", 4)
    assert status == 0
    assert "16x16 -> 64x64" in stdout
    assert Image.open(tmp_path / "b.png").size == (64, 64)


def test_a_tree_is_mirrored_and_no_names_collide(run, tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    for name in ("a.v1.png", "a.v2.png", "a.png", "a.jpg", "deep/a.png", ".hidden.png"):
        save(source / name)
    (source / "notes.txt").write_text("no image, and not named like one")
    status, *_ = run(source, "-o", out, "--recursive", "--format", "png")
    assert status == 0
    assert names(out) == ["a.jpg.png", "a.png.png", "a.v1.png", "a.v2.png", "deep/a.png"]
    status, *_ = run(source / "a.png", source / "deep" / "a.png", "-o", tmp_path / "flat")
    assert status == 0
    assert names(tmp_path / "flat") == ["a-2.png", "a.png"]


def test_an_output_folder_inside_the_input_is_not_read_again(run, tmp_path):
    save(tmp_path / "a.png")
    for _ in range(2):
        status, *_ = run(tmp_path, "-o", tmp_path / "out", "--recursive")
        assert status == 0
    assert names(tmp_path) == ["a.png", "out/a.png"]


def test_existing_results_are_skipped(run, model_64, tmp_path):
    save(tmp_path / "in" / "a.png")
    save(tmp_path / "in" / "b.png")
    kept = save(tmp_path / "out" / "a.png", 3, 3).read_bytes()
    status, stdout, stderr = run(
        tmp_path / "in", "-o", tmp_path / "out", "--skip-existing", "--json"
    )
    assert status == 0
    assert "1 skipped, 1 done" in stderr
    assert (tmp_path / "out" / "a.png").read_bytes() == kept
    skipped, done, last = map(json.loads, stdout.splitlines())
    assert skipped["status"] == "skipped"
    assert (done["input_size"], done["output_size"]) == ([16, 16], [64, 64])
    assert set(done["seconds"]) == {"read", "compile", "compute", "write"}
    about = {"model": str(model_64), "version": __version__, "scale": 4.0, "seed": None}
    assert about.items() <= done.items()
    assert about.items() <= last["summary"].items()
    assert done["peak_bytes"] > 0
    summary = last["summary"]
    assert (summary["done"], summary["skipped"], summary["unfinished"]) == (1, 1, 0)
    assert 0 < summary["share_waited"] < 1
    assert summary["megapixels_per_second"] == pytest.approx(
        summary["images_per_second"] * 64 * 64 / 1e6, abs=1e-4
    )
    assert f"{summary['images_per_second']:.2f} images/s" in stderr
    assert done["latent_tiles"] == 1


def test_the_input_is_overwritten_only_when_told_to(run, tmp_path):
    path = save(tmp_path / "a.png")
    before = path.read_bytes()
    status, _, stderr = run(path, "-o", tmp_path)
    assert status == 1
    assert "--overwrite-input" in stderr
    assert path.read_bytes() == before
    status, *_ = run(path, "-o", tmp_path, "--overwrite-input")
    assert status == 0
    assert Image.open(path).size == (64, 64)


def test_a_list_names_the_inputs_and_a_suffix_the_outputs(run, tmp_path):
    save(tmp_path / "a.png")
    save(tmp_path / "deep" / "b.jpg")
    (tmp_path / "some.txt").write_text("# chosen by hand\n\ndeep/b.jpg\n")
    status, *_ = run(tmp_path / "some.txt", "-o", tmp_path / "out", "--suffix", "_large")
    assert status == 0
    assert names(tmp_path / "out") == ["deep/b_large.jpg"]


def test_results_beside_their_inputs_are_no_inputs_of_the_next_run(run, tmp_path):
    save(tmp_path / "a.png")
    for status in ("done", "skipped"):
        _, _, stderr = run(tmp_path, "-o", tmp_path, "--suffix", "_x4", "--skip-existing")
        assert f"1 {status}" in stderr
        assert names(tmp_path) == ["a.png", "a_x4.png"]


def test_one_line_says_what_tiny_images_cost(run, tmp_path):
    """The model works on 64 px at least: 9 px that become 18 take as much."""
    for name in ("a", "b", "c"):
        save(tmp_path / "in" / f"{name}.png", 9, 9)
    status, _, stderr = run(tmp_path / "in", "-o", tmp_path / "out", "--scale", 2)
    assert status == 0
    cost = "18x18 px took the work of 64x64 px, the least that this model works on"
    assert stderr.count(cost) == 1
    assert f"a.png: {cost}; so do images like it" in stderr
    status, _, stderr = run(save(tmp_path / "d.png"), "-o", tmp_path / "d4.png")
    assert "took the work" not in stderr


def test_globs_and_comparisons(run, tmp_path):
    for name in ("a.png", "b.png", "c.jpg"):
        save(tmp_path / name)
    status, *_ = run(tmp_path / "*.png", "-o", tmp_path / "out", "--compare")
    assert status == 0
    assert names(tmp_path / "out") == ["a.compare.png", "a.png", "b.compare.png", "b.png"]
    with Image.open(tmp_path / "out" / "a.compare.png") as sheet:
        assert sheet.width == 2 * 64 + 8
        assert sheet.height > 64
    status, _, stderr = run(tmp_path / "*.gif", "-o", tmp_path / "out")
    assert (status, "nothing matches" in stderr) == (1, True)


def _bomb() -> bytes:
    """A PNG of a few bytes that says it has 40000 x 40000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    header = struct.pack(">IIBBBBB", 40000, 40000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def _truncated(path: Path) -> None:
    save(path, 64, 64)
    path.write_bytes(path.read_bytes()[:-400])


def _animated(path: Path) -> None:
    frames = [Image.fromarray(photo(seed=seed)) for seed in (0, 1)]
    frames[0].save(path, save_all=True, append_images=frames[1:])


BAD = {
    "truncated.jpg": (_truncated, "damaged"),
    "truncated.png": (_truncated, "damaged"),
    "empty.png": (lambda path: path.write_bytes(b""), "empty"),
    "text.png": (lambda path: path.write_text("hello"), "not an image"),
    "folder.png": (lambda path: path.mkdir(), "directory"),
    "bomb.png": (lambda path: path.write_bytes(_bomb()), "too large|limit"),
    "strip.png": (lambda path: save(path, 3, 20000), "narrow a strip"),
    "animated.webp": (_animated, "several frames"),
    "broken-link.png": (lambda path: path.symlink_to("nowhere"), "cannot be read"),
}


def test_each_bad_file_fails_by_itself(run, tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    save(source / "a-good.png")
    save(source / "z-tiny.png", 1, 1)
    for name, (make, _) in BAD.items():
        make(source / name)
    status, stdout, stderr = run(source, "-o", out, "--json")
    assert status == 1
    *lines, last = map(json.loads, stdout.splitlines())
    assert (last["summary"]["done"], last["summary"]["failed"]) == (2, len(BAD))
    reports = {Path(line["input"]).name: line for line in lines}
    assert list(reports) == sorted({*BAD, "a-good.png", "z-tiny.png"}), "in the order of the files"
    for name, (_, message) in BAD.items():
        assert reports[name]["status"] == "failed"
        assert name in reports[name]["error"]
        assert "\n" not in reports[name]["error"]
        assert any(part in reports[name]["error"] for part in message.split("|")), reports[name]
        assert f"failed: {reports[name]['error']}" in stderr
    assert names(out) == ["a-good.png", "z-tiny.png"]
    assert Image.open(out / "z-tiny.png").size == (4, 4)
    assert f"{len(BAD)} failed" in stderr


def test_a_gif_with_frames_is_refused_by_name(run, tmp_path):
    _animated(tmp_path / "a.gif")
    status, _, stderr = run(tmp_path / "a.gif", "-o", tmp_path / "out.png")
    assert (status, "several frames" in stderr) == (1, True)
    assert names(tmp_path) == ["a.gif"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file(run, tmp_path):
    save(tmp_path / "in" / "a.png").chmod(0)
    status, _, stderr = run(tmp_path / "in", "-o", tmp_path / "out")
    assert (status, "cannot be read" in stderr) == (1, True)


def test_permissions_that_refuse_reading(run, tmp_path, monkeypatch):
    """The same for root, who may read everything: the system's refusal is simulated."""
    save(tmp_path / "in" / "a.png")
    save(tmp_path / "in" / "b.png")
    stat = os.stat

    def refuse(path, *args, **options):
        if str(path).endswith("in/a.png"):
            raise PermissionError(13, "Permission denied")
        return stat(path, *args, **options)

    monkeypatch.setattr("omgsr_jax.files.opening.os.stat", refuse)
    status, _, stderr = run(tmp_path / "in", "-o", tmp_path / "out")
    assert status == 1
    assert "a.png cannot be read: Permission denied" in stderr
    assert names(tmp_path / "out") == ["b.png"]


def test_a_path_that_vanishes_midway(run, tmp_path, monkeypatch):
    save(tmp_path / "in" / "a.png")
    gone = save(tmp_path / "in" / "b.png")
    peek = folder._peek

    def vanish(path):
        size = peek(path)
        gone.unlink(missing_ok=True)  # after it was listed, before it is read
        return size

    monkeypatch.setattr(folder, "_peek", vanish)
    status, _, stderr = run(tmp_path / "in", "-o", tmp_path / "out")
    assert status == 1
    assert "b.png cannot be read: No such file" in stderr
    assert names(tmp_path / "out") == ["a.png"]


def test_a_full_disk_fails_the_file_and_leaves_nothing(run, tmp_path):
    """/dev/full refuses every byte, as a full disk does."""
    source = save(tmp_path / "in" / "a.png")

    def full(path):
        Path(path).touch()
        return open("/dev/full", "wb", buffering=0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("omgsr_jax.files.writing._create", full)
        status, _, stderr = run(source, "-o", tmp_path / "out")
    assert status == 1
    assert "No space left" in stderr
    assert names(tmp_path / "out") == []


def test_an_output_that_cannot_be_written(run, tmp_path):
    save(tmp_path / "in" / "a.png")
    (tmp_path / "out").write_text("a file where a folder should be")
    status, _, stderr = run(tmp_path / "in", "-o", tmp_path / "out")
    assert (status, "is a file" in stderr or "cannot be written" in stderr) == (1, True)


def _start(model: Path, cache: Path, *args: object) -> subprocess.Popen:
    """The command as its own process, with the compiled programs of this one."""
    return subprocess.Popen(
        [sys.executable, "-m", "omgsr_jax.cli", "upscale", *map(str, args), "--model", str(model)],
        cwd=ROOT,
        env={**os.environ, "JAX_COMPILATION_CACHE_DIR": str(cache)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_interruption_ends_cleanly(model_64, compile_cache, tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    for number in range(400):
        save(source / f"{number:03}.png", seed=number)
    process = _start(model_64, compile_cache, source, "-o", out)
    deadline = time.time() + 120
    while not (out.exists() and names(out)) and time.time() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1, stderr
    assert "unfinished" in stderr
    assert "Traceback" not in stderr
    written = names(out)
    assert 0 < len(written) < 400
    for name in written:  # each is whole
        assert np.asarray(Image.open(out / name)).shape == (64, 64, 3)
