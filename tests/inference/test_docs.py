"""The commands and the Python of docs/inference.md do what they say."""

import re
import shlex
from pathlib import Path

from PIL import Image

from omgsr_jax import cli
from omgsr_jax.inference import upscaler as module

from .conftest import photo

PAGE = (Path(__file__).parents[2] / "docs" / "inference.md").read_text()


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_page_works(upscaler, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for name in ("photo.png", "photos/a.jpg"):
        Image.fromarray(photo(16, 16)).save(name)
    monkeypatch.setattr(module, "load", lambda *_, **__: upscaler)
    commands = [line for block in _blocks("bash") for line in block.splitlines()]
    assert len(commands) == 5
    for command in commands:
        program, *args = shlex.split(command)
        assert program == "omgsr"
        assert cli.main(args) == 0, capsys.readouterr().err
    assert Image.open("large.png").size == (64, 64)
    assert Image.open("results/a.png").size == (32, 32)
    assert Image.open("wide.webp").size == (100, 100)
    assert Path("wide.compare.png").exists()
    for code in _blocks("python"):
        scope: dict = {}
        exec(code, scope)
        assert scope["first"].size == (64, 64)
