"""Wrong usage is said at once: before JAX is imported, and before a model is looked for."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from omgsr_jax import cli

ROOT = Path(__file__).parents[2]

# Runs the command, and tells which of the heavy libraries it has imported.
_PROGRAM = """
import sys
from omgsr_jax.cli import main
try:
    status = main(sys.argv[1:])
except SystemExit as stop:
    status = stop.code
heavy = {"jax", "flax", "cv2", "numpy", "grain", "huggingface_hub", "rich"}
print(status, sorted(heavy & set(sys.modules)))
"""

_UPSCALE = ["upscale", "a.png", "-o", "b.png", "--model", "nowhere"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--scale", "0"], "scale must be within 1 .. 8, not 0"),
        (["--scale", "nan"], "scale must be within 1 .. 8, not nan"),
        (["--scale", "9"], "scale must be within 1 .. 8, not 9"),
        (["--scale", "0.5"], "scale must be within 1 .. 8, not 0.5"),
        (["--scale", "2", "--size", "3x3"], "not allowed with"),
        (["--longest-side", "0"], "at least 1"),
        (["--size", "12"], "WIDTHxHEIGHT"),
        (["--size", "0x4"], "both sides of size must be within 1 .. 100000"),
        (["--format", "docx"], "format must be one of .png"),
        (["--format", ""], "format must be one of .png"),
        (["--strips", "none"], "strips must be auto, off or a number of rows, not 'none'"),
        (["--strips", "4"], "strips must be of at least 8 rows, not 4"),
        (["--seed", "-1"], "at least 0, not '-1'"),
        (["--color", "red"], "invalid choice"),
        (["--quirks", "v2", "--size", "3x3"], "a scale only"),
        (["--quirks", "published"], "invalid choice: 'published' (choose from"),
        (["--batch", "0"], "at least 1"),
        (["--device", "npu"], "device must be one of cpu, gpu, cuda, rocm, tpu"),
        (["--device", "gpu:x"], "device must be one of"),
        (["--suffix", "a/b"], "suffix must be text for the end of a file's name"),
        (["--suffix", ""], "suffix must be text"),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, list) else "",
)
def test_wrong_options_of_upscale_exit_with_2(capsys, wrong, message):
    with pytest.raises(SystemExit) as stop:
        cli.main([*_UPSCALE, *wrong])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["--help"], 0),
        (["upscale", "--help"], 0),
        ([*_UPSCALE, "--scale", "9"], 2),
        ([*_UPSCALE, "--format", "docx"], 2),
        ([*_UPSCALE, "--strips", "4"], 2),
        ([*_UPSCALE, "--shard", "3/3"], 2),
        ([*_UPSCALE, "--device", "gpu:x"], 2),
        (["eval", "--hr", "hr"], 2),
        (["timestep", "--model", "nano", "--data", "d", "--write"], 2),
        (["convert", "--perceptual", "a", "--out", "b", "--prompt", "c"], 2),
        (["convert", "--recipe", "unknown", "--out", "b"], 2),
        (["convert", "--list"], 0),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, list) else "",
)
def test_help_and_wrong_usage_import_nothing_heavy(argv, code):
    run = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *argv], cwd=ROOT, capture_output=True, text=True
    )
    assert run.stdout.splitlines()[-1] == f"{code} []", run.stderr


def test_the_colours_that_can_be_asked_for_are_those_that_there_are():
    from omgsr_jax.inference import colour, options

    assert tuple(colour.METHODS) == options.COLORS


def test_inference_knows_the_precisions_of_weights_and_int8():
    from omgsr_jax import weights
    from omgsr_jax.inference import options

    assert (*weights.PRECISIONS, "int8") == options.INFERENCE_PRECISIONS


def test_argcomplete_is_asked_where_a_shell_asks(monkeypatch):
    asked = []
    stub = SimpleNamespace(autocomplete=asked.append)
    monkeypatch.setitem(sys.modules, "argcomplete", stub)
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert asked == []
    monkeypatch.setenv("_ARGCOMPLETE", "1")
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert [parser.prog for parser in asked] == ["omgsr"]


def test_without_argcomplete_nothing_breaks(monkeypatch, capsys):
    monkeypatch.setenv("_ARGCOMPLETE", "1")
    monkeypatch.setitem(sys.modules, "argcomplete", None)  # as if it were not installed
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    assert stop.value.code == 0


@pytest.mark.parametrize(
    ("line", "expected"), [("omgsr ups", "upscale"), ("omgsr upscale --sha", "--shards")]
)
def test_a_shell_gets_commands_and_options(tmp_path, line, expected):
    """By argcomplete itself, which writes where it is told to, and ends the process."""
    pytest.importorskip("argcomplete")
    out = tmp_path / "completions"
    asked = {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(out),
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
    }
    subprocess.run(
        [sys.executable, "-c", "from omgsr_jax.cli import main; main()"],
        cwd=ROOT, env={**os.environ, **asked},
    )  # fmt: skip
    assert expected in [found.strip() for found in out.read_text().split("\n")]


def test_shells_find_the_mark_in_the_module_of_the_command():
    """argcomplete reads the first kilobyte of it."""
    assert "PYTHON_ARGCOMPLETE_OK" in Path(cli.__file__).read_text()[:1024]
