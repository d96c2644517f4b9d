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

from omgsr_jax import buckets, converted
from omgsr_jax.training import checkpoints, log
from tests.helpers import images
from tests.hostile.judge import command

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

    def begin(workdir, *flags, data=photos, steps=60, devices=1, script="scripts/train.py"):
        command = [sys.executable, script, "--config=tests/training/smallest.py"]
        command += [f"--workdir={workdir}", f"--config.data.sources=('{data}',)"]
        command += [f"--config.run.steps={steps}", *flags]
        environment = {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": ".",
            "JAX_DEFAULT_MATMUL_PRECISION": "highest",
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            "XLA_FLAGS": "--xla_backend_optimization_level=0 "
            f"--xla_force_host_platform_device_count={devices}",
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
    buckets.require(workdir)  # which sees what others write
    folder = checkpoints.absolute(workdir) / "checkpoints"
    for _ in range(6000):
        if checkpoints.steps_in(folder):
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


def _together(start, count, workdir, *flags, **options):
    """As many processes with gloo between them."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    common = [f"--coordinator={address}", f"--num_processes={count}", *flags]
    started = [start(workdir, *common, f"--process_id={i}", **options) for i in range(count)]
    codes, outputs = _finish(*started)
    assert codes == [0] * count, "".join(errors[-3000:] for _, errors in outputs)
    return outputs


def test_two_processes_train_as_one(start, whole, tmp_path):
    """Two processes with gloo between them hold half of each batch. Sums in another order."""
    workdir = tmp_path / "run"
    _together(start, 2, workdir, steps=10)
    losses = _losses(workdir)
    assert sorted(losses) == list(range(1, 11))
    for step, terms in losses.items():
        for term, value in terms.items():
            assert value == pytest.approx(whole[step][term], rel=1e-3), (step, term)


def test_two_processes_share_every_image(start, whole, tmp_path):
    """They read the same examples, and each has half of the rows."""
    workdir = tmp_path / "run"
    _together(start, 2, workdir, "--config.mesh.spatial=2", steps=10)
    losses = _losses(workdir)
    assert sorted(losses) == list(range(1, 11))
    for step, terms in losses.items():
        for term, value in terms.items():
            assert value == pytest.approx(whole[step][term], rel=1e-3), (step, term)


def test_the_process_that_is_slowed_is_named(start, tmp_path):
    outputs = _together(
        start, 2, tmp_path / "run", "--config.run.log_every=6", steps=12,
        script="tests/training/slowed.py",
    )  # fmt: skip
    said = [line for line in outputs[0][0].splitlines() if line.startswith("step 12: ")]
    assert f"the slowest is process 1 on {socket.gethostname()}: its devices wait" in said[0]
    values = log.read(tmp_path / "run")[12]
    assert values["process/slowest"] == 1
    assert values["process/1/waiting_for_data"] > 0.5 * values["time/step"]
    assert values["process/0/waiting_for_data"] < 0.2 * values["time/step"]


def test_saved_by_two_processes_and_resumed_by_one_and_by_four(start, whole, tmp_path):
    """On another mesh each time. An example too many or too few would change a loss by percents."""
    workdir = tmp_path / "run"
    _together(start, 2, workdir, "--config.mesh.fsdp=2", steps=8, devices=2)
    (code,), ((said, errors),) = _finish(start(workdir, steps=18))
    assert (code, "resumed from step 8\n" in said) == (0, True), errors[-3000:]
    outputs = _together(start, 4, workdir, "--config.mesh.fsdp=4", steps=38)
    assert "resumed from step 18\n" in outputs[0][0]
    losses = _losses(workdir)
    assert sorted(losses) == list(range(1, 39))
    for step, terms in losses.items():
        for term in ("ldr", "mse", "features", "gan", "discriminator"):
            assert terms[term] == pytest.approx(whole[step][term], rel=1e-6), (step, term)


def test_a_run_of_eight_devices_is_exported_by_one(start, tmp_path):
    workdir, model = tmp_path / "run", tmp_path / "model"
    flags = ["--config.mesh.fsdp=4", "--config.mesh.data=2", "--config.data.batch_size=8"]
    codes, outputs = _finish(start(workdir, *flags, steps=2, devices=8))
    assert codes == [0], outputs[0][1][-3000:]
    codes, outputs = _finish(start(workdir, f"--export={model}", "--which=latest"))
    assert codes == [0], outputs[0][1][-3000:]
    assert converted.stored_shapes(model)


def test_all_of_a_run_may_lie_in_a_bucket(start, whole, photos, fake_buckets, bucket, tmp_path):
    """Killed, resumed, exported, used."""
    fake_buckets.upload(photos, bucket, "photos")
    workdir, model = f"gs://{bucket}/run", f"gs://{bucket}/model"
    data = f"gs://{bucket}/photos"
    process = start(workdir, data=data)
    _wait_for_checkpoint(process, workdir)
    process.kill()
    _finish(process)
    codes, outputs = _finish(start(workdir, data=data))
    assert codes == [0], outputs[0][1][-3000:]
    assert "resumed from step" in outputs[0][0]
    assert _losses(workdir) == whole
    codes, outputs = _finish(start(workdir, f"--export={model}", "--which=latest"))
    assert codes == [0], outputs[0][1][-3000:]
    told = command("upscale", photos / "0.png", "-o", tmp_path / "out.png", "--model", model)
    assert told.code == 0, told.err
    assert Image.open(tmp_path / "out.png").size == (192, 192)
    assert command("info", model).code == 0
    assert not list(_ROOT.glob("gs*"))


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
