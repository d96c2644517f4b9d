"""A folder: reading, computing and writing overlap, within bounds, and shares give the whole."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from omgsr_jax import cli, launchers
from omgsr_jax.errors import InputError
from omgsr_jax.inference import folder, images, lookahead
from omgsr_jax.inference.jobs import Job, plan
from omgsr_jax.inference.options import Options, Share
from omgsr_jax.inference.reports import Throughput
from omgsr_jax.inference.results import Upscaled
from omgsr_jax.inference.sizes import Enlargement

from .conftest import photo

ROOT = Path(__file__).parents[2]
OPTIONS = Options(Enlargement.asked())
PATIENCE = 20  # seconds, for what happens at once if it happens at all


class Model:
    """Restores nothing, and notes what it is asked for. Every size is a canvas."""

    def __init__(self, batch: int = 1, restore: Callable[[Sequence], None] = lambda _: None):
        self.batch, self._restore = batch, restore
        self.planned: list = []
        self.batches: list[list] = []

    def plan(self, sizes, options):
        self.planned = list(sizes)

    def canvas(self, size, options):
        return size

    def restore(self, batch, options, on_progress=None):
        self.batches.append([picture.size for picture in batch])
        self._restore(batch)
        return [Upscaled(picture, picture.size) for picture in batch]


def folder_of(path: Path, sizes: Sequence[tuple[int, int]]) -> list[Job]:
    path.mkdir()
    for number, (height, width) in enumerate(sizes):
        Image.fromarray(photo(height, width, seed=number)).save(path / f"{number:03}.png")
    return plan([str(path)], path.parent / "out")


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


def test_the_next_images_are_read_and_the_last_results_written_while_one_is_computed(
    tmp_path, monkeypatch
):
    jobs = folder_of(tmp_path / "in", [(8, 8)] * 4)
    read, may_write = threading.Semaphore(0), threading.Event()
    begun = [threading.Event() for _ in jobs]
    read_one, write_one = images.read, images.write

    def reading(path):
        picture = read_one(path)
        read.release()
        return picture

    def writing(path, picture):
        assert may_write.wait(PATIENCE)
        return write_one(path, picture)

    def restoring(batch):
        number = sum(event.is_set() for event in begun)
        begun[number].set()
        if number == 0:  # nothing is computed yet, and all are read
            assert all(read.acquire(timeout=PATIENCE) for _ in jobs)
        if number == 2:  # nothing is written yet
            may_write.set()

    monkeypatch.setattr(lookahead.images, "read", reading)
    monkeypatch.setattr(folder.images, "write", writing)
    reports = list(folder.upscale_files(Model(restore=restoring), jobs, OPTIONS))
    assert [report.status for report in reports] == ["done"] * 4


def test_images_of_one_canvas_share_batches_and_reports_keep_the_order(tmp_path):
    sizes = [(8, 8), (8, 12), (8, 8), (12, 8), (8, 12), (8, 8)]
    jobs = folder_of(tmp_path / "in", sizes)
    model = Model(batch=2)
    reports = list(folder.upscale_files(model, jobs, OPTIONS))
    assert model.batches == [[(8, 8)] * 2, [(8, 12)] * 2, [(12, 8)], [(8, 8)]]
    assert [report.job for report in reports] == jobs
    assert [report.output_size for report in reports] == sizes


def test_a_rare_canvas_waits_for_full_batches_but_not_for_ever(tmp_path):
    jobs = folder_of(tmp_path / "in", [(8, 12), *[(8, 8)] * 80])
    model = Model(batch=2)
    list(folder.upscale_files(model, jobs, OPTIONS))
    when = model.batches.index([(8, 12)])
    assert 0 < when <= lookahead._REACH
    assert [len(batch) for batch in model.batches].count(2) == 40


def test_what_is_held_is_bounded_by_pixels(tmp_path, monkeypatch):
    """Large images: one is computed, one is read ahead, and few wait to be written."""
    jobs = folder_of(tmp_path / "in", [(40, 40)] * 12)
    monkeypatch.setattr(lookahead, "_PIXELS", 1600)
    monkeypatch.setattr(folder, "_PIXELS_BEHIND", 1600)
    read, computed, written = [0], [0], [0]
    read_one, write_one = images.read, images.write
    most_ahead, most_behind = [0], [0]

    def reading(path):
        read[0] += 1
        most_ahead[0] = max(most_ahead[0], read[0] - computed[0])
        return read_one(path)

    def restoring(batch):
        time.sleep(0.01)
        computed[0] += 1
        most_behind[0] = max(most_behind[0], computed[0] - written[0])

    def writing(path, picture):
        time.sleep(0.03)
        notes = write_one(path, picture)
        written[0] += 1
        return notes

    monkeypatch.setattr(lookahead.images, "read", reading)
    monkeypatch.setattr(folder.images, "write", writing)
    assert len(list(folder.upscale_files(Model(restore=restoring), jobs, OPTIONS))) == 12
    assert most_ahead[0] <= 3  # computed, put together for the next batch, and one more
    assert most_behind[0] <= 3  # being written, above the bound, and just computed


def test_closing_the_iterator_stops_the_work_and_leaves_whole_files(tmp_path):
    jobs = folder_of(tmp_path / "in", [(8, 8)] * 40)
    model = Model(restore=lambda _: time.sleep(0.01))
    reports = folder.upscale_files(model, jobs, OPTIONS)
    assert next(reports).status == "done"
    reports.close()
    count, files = len(model.batches), contents(tmp_path / "out")
    time.sleep(0.1)
    assert 0 < len(model.batches) == count < 20, "it went on"
    assert contents(tmp_path / "out") == files
    for name in files:
        assert np.asarray(Image.open(tmp_path / "out" / name)).shape == (8, 8, 3)
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("write")]


def test_memory_that_runs_out_while_one_is_written_fails_that_one(tmp_path, monkeypatch):
    jobs = folder_of(tmp_path / "in", [(8, 8)] * 3)
    write_one = images.write

    def writing(path, picture):
        if path == jobs[1].goal:
            raise MemoryError
        return write_one(path, picture)

    monkeypatch.setattr(folder.images, "write", writing)
    reports = list(folder.upscale_files(Model(), jobs, OPTIONS))
    assert [report.status for report in reports] == ["done", "failed", "done"]
    assert reports[1].error == f"{jobs[1].goal} does not fit the memory"


def test_an_image_that_fails_takes_none_of_its_batch_with_it(tmp_path):
    jobs = folder_of(tmp_path / "in", [(8, 8)] * 4)
    bad = images.read(jobs[2].source).rgb

    def refuse(batch):
        if any(np.array_equal(picture.rgb, bad) for picture in batch):
            raise InputError("it cannot be done")

    reports = list(folder.upscale_files(Model(batch=4, restore=refuse), jobs, OPTIONS))
    assert [report.status for report in reports] == ["done", "done", "failed", "done"]
    assert reports[2].error == f"{jobs[2].source}: it cannot be done"


def test_the_time_without_work_is_told_apart_from_that_of_computing(tmp_path, monkeypatch):
    jobs = folder_of(tmp_path / "in", [(8, 8)] * 5)
    read_one = images.read

    def slow(path):
        time.sleep(0.1)
        return read_one(path)

    slow_reading, slow_computing = Throughput(), Throughput()
    model = Model(restore=lambda _: time.sleep(0.1))
    list(folder.upscale_files(model, jobs, OPTIONS, throughput=slow_computing))
    monkeypatch.setattr(lookahead.images, "read", slow)
    monkeypatch.setattr(folder, "ThreadPoolExecutor", lambda _, **how: ThreadPoolExecutor(1, **how))
    list(folder.upscale_files(Model(), jobs, OPTIONS, throughput=slow_reading))
    assert slow_computing.share_waited < 0.3
    assert slow_reading.share_waited > 0.7
    assert (slow_reading.images, slow_reading.pixels) == (5, 5 * 64)


# Shares


def test_shares_are_disjoint_and_together_all():
    for count in (1, 2, 3, 7, 20):
        parts = [Share(index, count).of(range(11)) for index in range(count)]
        assert sorted(n for part in parts for n in part) == list(range(11))


class Tinted(Model):
    """Its results depend on the sizes that are planned, as canvases do."""

    def restore(self, batch, options, on_progress=None):
        tint = sum(height * 7 + width for height, width in self.planned) % 97 / 97
        return [Upscaled(replace(p, values=p.rgb * np.float32(tint)), p.size) for p in batch]


def test_shares_together_give_the_bytes_of_one_run(tmp_path, monkeypatch):
    """Canvases are chosen for the whole folder."""
    monkeypatch.setattr("omgsr_jax.inference.loading.load", lambda *_, **__: Tinted())
    sizes = [(16, 16), (17, 24), (16, 20), (24, 16), (20, 21), (16, 16), (23, 17)]
    folder_of(tmp_path / "in", sizes)
    (tmp_path / "in" / "bad.png").write_text("no image")

    def run(out: str, *more: str) -> int:
        place = str(tmp_path / "in"), "-o", str(tmp_path / out)
        return cli.main(["upscale", *place, "--compare", *more])

    assert run("whole") == 1
    codes = [run("shares", "--shard", f"{index}/3") for index in range(3)]
    assert codes == [0, 1, 0], "only the share with the bad file fails"
    assert contents(tmp_path / "shares") == contents(tmp_path / "whole")
    assert len(contents(tmp_path / "whole")) == 2 * len(sizes)
    assert run("shares", "--shard", "8/9") == 0, "there may be more shares than files"


@pytest.mark.parametrize("text", ["3/3", "-1/3", "1", "a/b", "1/0", "1/2/3", "", "0/", "²/3"])
def test_a_share_that_is_none_is_wrong_usage(text, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["upscale", "a.png", "-o", "b.png", f"--shard={text}"])
    assert stop.value.code == 2
    assert "I/N with I from 0 to N - 1, such as 0/3" in capsys.readouterr().err


_SLURM = {"SLURM_STEP_NODELIST": "a", "SLURM_PROCID": "5", "SLURM_NTASKS": "8"}
_SLURM |= {"SLURM_LOCALID": "1", "SLURM_STEP_NUM_NODES": "2"}
_MPI = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"}
_MPI |= {"OMPI_COMM_WORLD_LOCAL_RANK": "0", "OMPI_COMM_WORLD_LOCAL_SIZE": "1"}


@pytest.mark.parametrize(
    ("environment", "process", "gpus"),
    [
        ({}, None, None),
        (_SLURM, (5, 8), "1"),
        (_SLURM | {"CUDA_VISIBLE_DEVICES": "0,1,2,3"}, (5, 8), "1"),
        (_SLURM | {"CUDA_VISIBLE_DEVICES": "3"}, (5, 8), None),  # Slurm has divided them
        (_SLURM | {"JAX_LOCAL_DEVICE_IDS": "2,3"}, (5, 8), "2,3"),
        (_SLURM | {"SLURM_STEP_NUM_NODES": "8"}, (5, 8), None),  # one on each host
        (_SLURM | {"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, None, None),
        (_SLURM | {"SLURM_PROCID": "x"}, None, None),
        ({k: v for k, v in _SLURM.items() if k != "SLURM_STEP_NODELIST"}, None, None),
        (_MPI, (1, 2), None),
    ],
)  # fmt: skip
def test_a_launcher_says_which_process_this_is_and_which_gpus_it_has(environment, process, gpus):
    found = launchers.launched(environment)
    assert (found and (found.index, found.count)) == process
    assert launchers.own_gpus(environment) == gpus


_JOINED = "import jax, sys; jax.distributed.initialize(sys.argv.pop(1), 2, int(sys.argv.pop(1)));"


@pytest.mark.slow
@pytest.mark.parametrize("how", ["--shard", "Slurm", "jax.distributed"])
def test_two_processes_with_the_real_network_give_the_bytes_of_one(
    how, model_64, compile_cache, tmp_path
):
    sizes = [(16, 16), (17, 24), (16, 20), (24, 16), (20, 21), (16, 16)]  # more than canvases
    folder_of(tmp_path / "in", sizes)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"

    def start(out: str, index: int | None) -> subprocess.Popen:
        environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(compile_cache)}
        program, before = "import sys;", []
        if index is not None and how == "Slurm":
            environment |= _SLURM | {"SLURM_NTASKS": "2", "SLURM_PROCID": str(index)}
        elif index is not None and how == "jax.distributed":
            program, before = _JOINED, [address, str(index)]
        program += "from omgsr_jax import cli; sys.exit(cli.main())"
        arguments = ["upscale", str(tmp_path / "in"), "-o", str(tmp_path / out), "--json"]
        if index is not None and how == "--shard":
            arguments += [how, f"{index}/2"]
        return subprocess.Popen(
            [sys.executable, "-c", program, *before, *arguments, "--model", str(model_64)],
            cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    started = [start("whole", None), start("shares", 0), start("shares", 1)]
    ended = [(process, *process.communicate(timeout=300)) for process in started]
    for process, _, err in ended:
        assert process.returncode == 0, err[-2000:]
    done = [json.loads(out.splitlines()[-1])["summary"]["done"] for _, out, _ in ended]
    assert done == [6, 3, 3]
    assert "share 1/2: 3 of 6 images" in ended[2][2]
    assert contents(tmp_path / "shares") == contents(tmp_path / "whole")


def test_processes_that_jax_has_joined_take_a_share_each(monkeypatch):
    import jax

    from omgsr_jax.cli.upscale import _share

    monkeypatch.setattr(jax, "process_index", lambda: 1)
    monkeypatch.setattr(jax, "process_count", lambda: 4)
    assert _share(SimpleNamespace(shard=None)) == Share(1, 4)
    assert _share(SimpleNamespace(shard=Share(0, 3))) == Share(0, 3)
