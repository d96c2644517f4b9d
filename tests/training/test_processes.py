"""scripts/train.py as its users start it: killed, stopped, resumed, and as two processes."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from omgsr_jax.training import log
from tests.helpers import images

_ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for i, image in enumerate(images(0, 24, 48, 48, 3)):
        Image.fromarray(np.uint8((image + 1) * 127)).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def start(photos, tmp_path_factory):
    """Starts a process that trains; all of them share compiled programs."""
    cache = tmp_path_factory.mktemp("programs")

    def begin(workdir, *flags, steps=60):
        command = [sys.executable, "scripts/train.py", "--config=tests/training/smallest.py"]
        command += [f"--workdir={workdir}", f"--config.data.sources=('{photos}',)"]
        command += [f"--config.run.steps={steps}", *flags]
        environment = {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": ".",
            "JAX_DEFAULT_MATMUL_PRECISION": "highest",
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            "XLA_FLAGS": "--xla_backend_optimization_level=0",
        }
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, cwd=_ROOT, env=environment, stdout=pipe, stderr=pipe, text=True
        )

    return begin


def _finish(*processes):
    outputs = [process.communicate(timeout=900) for process in processes]
    return [process.returncode for process in processes], outputs


def _losses(workdir):
    terms = ("ldr", "mse", "features", "gan", "discriminator", "gradient/generator")
    found = log.read(workdir)
    return {
        step: {term: values[term] for term in terms}
        for step, values in found.items()
        if "ldr" in values
    }


def _wait_for_checkpoint(process, workdir):
    """Until one is written; steps are fast here, so that some more are done by then."""
    for _ in range(6000):
        if any(path.name.isdigit() for path in (workdir / "checkpoints").glob("*")):
            return
        assert process.poll() is None, process.communicate()[1][-2000:]
        time.sleep(0.05)
    raise AssertionError("no checkpoint came")


@pytest.fixture(scope="module")
def whole(start, tmp_path_factory):
    """The losses of 60 uninterrupted steps."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    codes, outputs = _finish(start(workdir))
    assert codes == [0], outputs[0][1][-3000:]
    losses = _losses(workdir)
    assert len(losses) == 60
    return losses


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=lambda how: how.name)
def test_a_stopped_run_goes_on_bit_by_bit(how, start, whole, tmp_path):
    """Stopped after the first checkpoint; at least 20 further steps are the same."""
    process = start(tmp_path / "run")
    _wait_for_checkpoint(process, tmp_path / "run")
    process.send_signal(how)
    (code,), _ = _finish(process)
    assert code == (3 if how == signal.SIGTERM else -how)
    process = start(tmp_path / "run")
    (code,), ((said, errors),) = _finish(process)
    assert code == 0, errors[-3000:]
    resumed = int(said.split("resumed from step ")[1].split()[0])
    assert resumed >= 8
    assert 60 - resumed >= 20
    assert _losses(tmp_path / "run") == whole


def test_two_processes_train_as_one(start, whole, tmp_path):
    """Two processes with gloo between them hold half of each batch. Sums in another order."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    workdir = tmp_path / "run"
    flags = [f"--coordinator={address}", "--num_processes=2"]
    processes = [start(workdir, *flags, f"--process_id={i}", steps=10) for i in range(2)]
    codes, outputs = _finish(*processes)
    assert codes == [0, 0], outputs[0][1][-3000:] + outputs[1][1][-3000:]
    losses = _losses(workdir)
    assert sorted(losses) == list(range(1, 11))
    for step, terms in losses.items():
        for term, value in terms.items():
            assert value == pytest.approx(whole[step][term], rel=1e-3), (step, term)


def test_what_is_wrong_is_said_in_one_line(start, whole, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("mine")
    cases = {
        "--config.data.batch_size=3": "a multiple of 2, such as 4",
        "--config.model.path=/nowhere": "set either config.model.path",
    }
    for flag, message in cases.items():
        process = start(tmp_path / flag[9:15], flag, "--config.data.accumulation=2")
        (code,), ((_, errors),) = _finish(process)
        assert code == 2
        assert message in errors, errors[-500:]
    (code,), ((_, errors),) = _finish(start(tmp_path / "other"))
    assert code == 2
    assert "not empty" in errors
