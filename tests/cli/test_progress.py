"""Signs of life: what `omgsr` shows on a pseudo-terminal, and that it shows nothing elsewhere."""

import contextlib
import io
import itertools
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from omgsr_jax.cli import main
from omgsr_jax.cli.progress import display, duration
from omgsr_jax.inference.programs import Programs
from omgsr_jax.inference.restore import Prediction
from tests.inference.conftest import photo

ROOT = Path(__file__).parents[2]
_SIZE = {"TERM": "xterm", "COLUMNS": "100", "LINES": "24"}


class Terminal:
    """A pseudo-terminal; what comes out of it, and when. In its block it is stderr, and stdout is
    a file."""

    def __init__(self) -> None:
        self._master, self.slave = pty.openpty()
        self.began = time.perf_counter()
        self.times: list[float] = []
        self.stdout = io.StringIO()
        self._parts: list[bytes] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # nobody writes any more
            while part := os.read(self._master, 4096):
                self.times.append(time.perf_counter())
                self._parts.append(part)

    def __enter__(self) -> "Terminal":
        self._before = sys.stderr, sys.stdout
        sys.stderr, sys.stdout = os.fdopen(os.dup(self.slave), "w", encoding="utf-8"), self.stdout
        self.began = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended = time.perf_counter()
        sys.stderr.close()
        sys.stderr, sys.stdout = self._before
        os.close(self.slave)
        self._reader.join(10)
        os.close(self._master)

    @property
    def text(self) -> str:
        return b"".join(self._parts).decode()

    def gaps(self) -> list[float]:
        """The seconds before each output, and behind the last one."""
        moments = [self.began, *self.times, self.ended]
        return [after - before for before, after in itertools.pairwise(moments)]


@pytest.fixture
def terminal(monkeypatch) -> Terminal:
    for name, value in _SIZE.items():
        monkeypatch.setenv(name, value)
    return Terminal()


@pytest.fixture
def upscale(model_64, upscaler, tmp_path, monkeypatch) -> Callable[..., int]:
    """Enlarges a photograph by a model that is loaded: on nine tiles."""
    monkeypatch.setattr("omgsr_jax.inference.loading.load", lambda *_, **__: upscaler)
    Image.fromarray(photo(32, 32)).save(tmp_path / "photo.png")
    upscaler.upscale(photo(32, 32))  # compiles
    out = tmp_path / "out.png"

    def run(*options: str) -> int:
        source = str(tmp_path / "photo.png")
        return main(["upscale", source, "-o", str(out), "--model", str(model_64), *options])

    return run


def slow(monkeypatch, seconds: float) -> None:
    """Each program takes so long."""
    call = Programs._call

    def calling(self, *given):
        time.sleep(seconds)
        return call(self, *given)

    monkeypatch.setattr(Programs, "_call", calling)


def test_a_terminal_sees_the_stages_the_tiles_and_the_time_that_is_left(
    terminal, upscale, monkeypatch
):
    slow(monkeypatch, 0.25)
    with terminal:
        assert upscale() == 0
    text = terminal.text
    assert re.search(r"photo\.png: predict [1-8] of 9 .* s left", text)
    assert text.rstrip().splitlines()[-1].endswith("of the time)")  # the summary is behind it
    assert "32x32 -> 128x128" in terminal.stdout.getvalue()


def test_the_line_moves_while_a_program_runs(terminal, upscale, monkeypatch):
    slow(monkeypatch, 1.2)
    monkeypatch.setattr(Programs, "_in_tiles", lambda self, how, z_l, *_: z_l)
    with terminal:
        assert upscale() == 0
    assert max(terminal.gaps()) < 1


def test_elsewhere_only_results_and_the_summary_are_printed(upscale, capsys):
    assert upscale() == 0
    out, err = capsys.readouterr()
    assert out.count("\n") == err.count("\n") == 1
    assert "\x1b" not in out + err
    assert err.startswith("1 done (")


@pytest.mark.parametrize("option", ["--quiet", "--json"])
def test_nothing_moves_where_nobody_wants_it(terminal, upscale, option):
    with terminal:
        assert upscale(option) == 0
    text = terminal.text
    assert "\x1b" not in text
    assert (text == "") == (option == "--quiet")
    assert (terminal.stdout.getvalue() == "") == (option == "--quiet")


def test_ctrl_c_stops_a_long_image_between_its_programs(terminal, upscale, tmp_path, monkeypatch):
    call, predicted = Programs._call, []

    def interrupted(self, program, *operands):
        if isinstance(program, Prediction):
            predicted.append(1)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.3)
        return call(self, program, *operands)

    monkeypatch.setattr(Programs, "_call", interrupted)
    with terminal:
        assert upscale() == 1
    text = terminal.text
    assert len(predicted) == 1
    assert "1 unfinished" in text
    assert text.rstrip().endswith("omgsr upscale: stopped")
    assert not (tmp_path / "out.png").exists()


def test_counted_work_says_how_far_it_is_and_what_is_printed_stays(terminal):
    with terminal, display("beginning") as line:
        for done in range(1, 4):
            line.count("degraded", done, 3)
            print(f"a warning: {done}", file=sys.stderr)
            time.sleep(0.3)
    assert "degraded: 2 of 3" in terminal.text
    assert all(f"a warning: {done}\r\n" in terminal.text for done in range(1, 4))


def test_after_an_interruption_the_line_says_what_it_said_before(terminal):
    with terminal, display("") as line:
        line.begin("reading")
        line.work("compiling", None)
        assert line.bar.tasks[0].description == "compiling"
        line.work("compiling", 1.0)
        assert line.bar.tasks[0].description == "reading"


def test_a_terminal_that_cannot_move_lines_gets_none(terminal, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    with terminal, display("beginning") as line:
        assert not line.is_shown
    assert terminal.text == ""


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (99, "99 s"), (150, "2 min"), (9000, "2.5 h")]
)
def test_durations_are_for_people(seconds, text):
    assert duration(seconds) == text


@pytest.mark.slow
def test_a_cold_start_shows_life_within_a_second_and_every_three(tmp_path):
    """nano, with nothing compiled."""
    Image.fromarray(photo(192, 256)).save(tmp_path / "photo.jpg")
    environment = {
        **os.environ,
        **_SIZE,
        "PYTHONPATH": str(ROOT),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    with Terminal() as terminal:
        status = subprocess.run(
            [sys.executable, "-m", "omgsr_jax.cli", "upscale", "photo.jpg", "-o", "out.png"],
            cwd=tmp_path,
            env=environment,
            stdout=terminal.slave,
            stderr=terminal.slave,
        ).returncode
    first, *later = terminal.gaps()
    took = terminal.ended - terminal.began
    print(f"first sign after {first:.2f} s, then at most {max(later):.2f} s apart, of {took:.1f} s")
    assert status == 0, terminal.text
    assert (tmp_path / "out.png").exists()
    assert took > 3  # so that a silent command would be found
    assert first <= 1
    assert max(later) <= 3
