"""Wrong command lines are answered at once, by one sentence, and touch nothing."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from .command_lines import NAMES, USAGE, lay_out
from .judge import assert_sentence, command, untouched

ROOT = Path(__file__).parents[2]
_HEAVY = {"jax", "flax", "numpy", "cv2", "grain", "orbax", "omgsr_jax.inference.upscaler"}

# Runs the command lines one after another. For each: how it ended, the CPU time that it took (the
# first imports the command line itself), and what was imported until then.
_PROGRAM = """
import contextlib, io, json, sys, time
for argv in json.loads(sys.argv[1]):
    err, started = io.StringIO(), time.process_time()
    with contextlib.redirect_stderr(err):
        try:
            from omgsr_jax.cli import main
            code = main(argv)
        except SystemExit as stop:
            code = stop.code
    seconds = time.process_time() - started
    print(json.dumps([code, seconds, err.getvalue(), sorted(sys.modules)]))
"""


@pytest.fixture
def laid_out(tmp_path, monkeypatch) -> Path:
    lay_out(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_wrong_usage_exits_with_2_within_half_a_second_and_loads_nothing(laid_out):
    lines = list(USAGE)
    with untouched(laid_out):
        run = subprocess.run(
            [sys.executable, "-c", _PROGRAM, json.dumps([shlex.split(line) for line in lines])],
            env={"PYTHONPATH": str(ROOT), "PATH": ""},
            capture_output=True,
            text=True,
        )
    answers = [json.loads(line) for line in run.stdout.splitlines()]
    assert len(answers) == len(lines), run.stderr
    for line, (code, seconds, err, modules) in zip(lines, answers, strict=True):
        assert code == 2, f"{line[:80]}: exit code {code}: {err}"
        assert_sentence(err.strip().splitlines()[-1], USAGE[line])
        assert seconds < 0.5, f"{line[:80]}: {seconds:.2f} s of CPU time"
        assert not _HEAVY & set(modules), line[:80]


def test_what_names_show_is_said_before_a_model_is_loaded(laid_out, monkeypatch):
    def read(*args, **options):
        raise AssertionError("weights were read")

    monkeypatch.setattr("omgsr_jax.converted.read", read)
    with untouched(laid_out):
        for line, expected in NAMES.items():
            answer = command(*shlex.split(line))
            assert answer.code == 1, f"{line}: exit code {answer.code}: {answer.err}"
            assert_sentence(answer.reason, expected)


def test_there_are_enough_command_lines():
    assert len(USAGE) + len(NAMES) >= 80
