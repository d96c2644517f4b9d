"""A conversion or an edit of a card that is killed leaves the old state or the new one."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from omgsr_jax import converted

from .judge import command

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow

_CONVERT = "import sys; from omgsr_jax.cli import main; sys.exit(main(sys.argv[1:]))"


def _start(program: str, *argv: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, argv)],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def _require_nothing_half_written(out: Path, base: Path) -> None:
    """What has the name is whole, and the next run succeeds and clears what is left over."""
    if out.exists():
        converted.read(out)
        shutil.rmtree(out)
    assert command("convert", "--base", base, "--out", out).code == 0
    assert list(out.parent.iterdir()) == [out]
    shutil.rmtree(out)


def test_20_killed_conversions_leave_nothing_half_written(originals, tmp_path):
    """Kills fall anywhere between the first file that is written and the rename."""
    _, base = originals
    out = tmp_path / "outputs" / "out"
    out.parent.mkdir()

    def started() -> subprocess.Popen[str]:
        process = _start(_CONVERT, "convert", "--base", base, "--out", out)
        while process.poll() is None and not out.with_name(".out.partial").exists():
            time.sleep(0.001)
        return process

    undisturbed, begun = started(), time.monotonic()
    while not out.exists() and undisturbed.poll() is None:
        time.sleep(0.001)
    seconds = time.monotonic() - begun
    assert undisturbed.wait() == 0
    _require_nothing_half_written(out, base)
    rng, kills, whole = random.Random(0), 0, 0
    for _ in range(100):  # one that comes too late is none
        process = started()
        time.sleep(rng.uniform(0, seconds))
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        whole += out.exists()
        _require_nothing_half_written(out, base)
        if kills == 20:
            break
    print(f"{kills} kills within {seconds:.1f} s; {whole} models were there")
    assert kills == 20


@pytest.mark.parametrize("before", [True, False], ids=["before", "behind"])
def test_a_conversion_killed_at_its_rename_is_there_or_not(originals, tmp_path, before):
    _, base = originals
    out = tmp_path / "outputs" / "out"
    out.parent.mkdir()
    # Orbax renames as well; only that of the folder counts here.
    program = f"""
import os, signal
from pathlib import Path
rename = Path.rename
def end_at(self, goal):
    if Path(goal).name != "out": return rename(self, goal)
    if not {before}: rename(self, goal)
    os.kill(os.getpid(), signal.SIGKILL)
Path.rename = end_at
{_CONVERT}"""
    process = _start(program, "convert", "--base", base, "--out", out)
    assert process.wait() == -signal.SIGKILL
    assert out.exists() is not before
    _require_nothing_half_written(out, base)


def test_20_killed_edits_of_a_card_leave_the_old_one_or_the_new_one(originals, tmp_path):
    model = Path(shutil.copytree(originals[0], tmp_path / "model"))
    card = json.loads((model / converted.CARD).read_text())
    for name in ("encoder_lora", "backbone_lora"):
        card["generator"][name] = None
    (model / converted.CARD).write_text(json.dumps(card))
    program = (
        "import sys; from omgsr_jax import converted; print('ready', flush=True)\n"
        "while True:\n"
        "    for t in range(1000): converted.set_mid_timestep(sys.argv[1], t)"
    )
    for kill in range(20):
        process = _start(program, model)
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.05 + kill * 0.003)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert converted.read_card(model).generator.mid_timestep in range(1000)
        assert json.loads((model / converted.CARD).read_text())["files"] == card["files"]
    converted.set_mid_timestep(model, 5)
    left = [path.name for path in model.iterdir()]
    assert sorted(left) == sorted([converted.CARD, "params"])
