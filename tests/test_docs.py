"""The commands and the Python of README and docs do what they say, or say why they are not run."""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import omgsr_jax
from omgsr_jax import assets, cli
from tests.data.photos import synthetic_photo
from tests.documented import PAGES, ROOT, Block, blocks, commands, inline_commands
from tests.parse_scripts import ParsedError, stop_after_parsing
from tests.stand_in import write_stand_in

BLOCKS = [block for page in PAGES for block in blocks(page)]
COMMANDS = [
    (f"{block}: {' '.join(command)}", command)
    for block in BLOCKS
    if block.language == "bash"
    for command in commands(block.text)
] + [
    (f"{page.name}: {' '.join(command)}", command)
    for page in PAGES
    for command in inline_commands(page)
]
# Programs that are not ours; their options are not checked.
FOREIGN = {".", "cd", "curl", "export", "gcloud", "git", "hf"}
FOREIGN |= {"mkdocs", "mypy", "pre-commit", "ruff"}

# Modules that docs/design.md need not name.
UNNAMED = {"__init__.py"}


# What is written


def test_blocks_are_of_languages_that_are_tested_or_are_not_code():
    known = {"", "bash", "python", "bibtex", "mermaid", "text"}
    assert not [str(block) for block in BLOCKS if block.language not in known]


def test_a_command_line_of_omgsr_is_accepted_by_its_parser(monkeypatch, capsys):
    parse = stop_after_parsing(argparse.ArgumentParser.parse_args)
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse)
    for where, (program, *argv) in COMMANDS:
        if program != "omgsr":
            continue
        try:
            cli.main(argv)
        except ParsedError:
            continue
        except SystemExit:
            pytest.fail(f"{where}\n{capsys.readouterr().err}")


def test_scripts_exist_and_know_the_options_they_are_given():
    asked = [(where, argv) for where, (program, *argv) in COMMANDS if program == "python"]
    asked = [(where, argv) for where, argv in asked if argv[0] != "-m"]
    run = subprocess.run(
        [sys.executable, "-m", "tests.parse_scripts"],
        cwd=ROOT, input=json.dumps([argv for _, argv in asked]), capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    problems = zip(asked, json.loads(run.stdout), strict=True)
    assert not [f"{where}\n    {problem}" for (where, _), problem in problems if problem]


def test_other_commands_name_files_and_extras_that_exist():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    for where, (program, *argv) in COMMANDS:
        if program == "pip":
            named = re.findall(r"(?:\.|omgsr-jax)\[([\w,]+)\]", " ".join(argv))
            assert {extra for names in named for extra in names.split(",")} <= set(extras), where
        elif program == "pytest":
            assert all((ROOT / word).exists() for word in argv if word.endswith(".py")), where
        elif program.startswith("scripts/"):
            assert (ROOT / program).is_file(), where
        else:
            assert program in FOREIGN | {"omgsr", "python"}, f"{where}: nothing tests {program}"


def test_links_of_the_docs_stay_inside_the_site():
    """mkdocs --strict accepts no others; a file outside is named as code."""
    for page in (ROOT / "docs").glob("*.md"):
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
            if "://" not in target:
                path = (page.parent / target).resolve()
                assert path.is_relative_to(ROOT / "docs"), f"{page.name} links to {target}"
                assert path.exists(), f"{page.name} links to {target}"


def test_the_design_names_every_folder_and_module():
    text = (ROOT / "docs" / "design.md").read_text()
    files = [path.name for path in (ROOT / "omgsr_jax").glob("*.py")]
    files += [path.name for path in (ROOT / "conversion").rglob("*.py")]
    folders = [
        f"{path.name}/"
        for top in ("omgsr_jax", "conversion")
        for path in [ROOT / top, *(ROOT / top).rglob("*/")]
        if list(path.glob("*.py"))
    ]
    missing = {name for name in files + folders if name not in text} - UNNAMED
    assert not missing, f"docs/design.md does not name {sorted(missing)}"


# What is run


@pytest.fixture
def house(tmp_path, model_64, tiny_base, tiny_adapter, compile_cache, monkeypatch):
    """A folder with what the pages name: models, photographs, outputs. nano is a stand-in."""
    small = write_stand_in(tmp_path / "model", process_size=64)
    for name, source in {
        "models/omgsr-s": model_64,
        "models/mine": model_64,
        "models/sd21-base": small,
        "stabilityai/sd-turbo": tiny_base,
        "path/to/omgsr-s-512": tiny_adapter,
    }.items():
        shutil.copytree(source, tmp_path / name)
    for name, side in {
        "photo.png": 16, "photo.jpg": 16, "photos/a.jpg": 16, "photos/b.png": 16,
        "data/LSDIR/a.png": 96, "data/ffhq/b.png": 96, "kodak/1.png": 64,
        "realsr/lr/a.png": 128, "realsr/hr/a.png": 512,
        "outputs/a.png": 512, "outputs/a/a.png": 512, "outputs/b/a.png": 512,
    }.items():  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(synthetic_photo(side, side, seed=len(name))).save(path)
    (tmp_path / "data" / "ffhq_10k.txt").write_text("ffhq/b.png\n")
    monkeypatch.setitem(assets.MODELS, "nano", small)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def given_conversion(house: Path) -> dict[str, Any]:
    return {"x": np.zeros((1, 64, 64, 3), np.float32)}


def given_data(house: Path) -> dict[str, Any]:
    """Photographs that a crop of 512 px can be cut from."""
    for name in ("a.jpg", "b.png"):
        Image.fromarray(synthetic_photo(520, 540, seed=1)).save(house / "photos" / name)
    return {}


def given_evaluation(house: Path) -> dict[str, Any]:
    return {
        "np": np,
        "hr_dir": "realsr/hr",
        "lr_dir": "realsr/lr",
        "model": omgsr_jax.load(house / "model"),
    }


def given_timestep(house: Path) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {"batches": [rng.uniform(-1, 1, (2, 2, 32, 32, 3)).astype(np.float32)]}


# Names that a page's Python takes for granted.
GIVEN: dict[str, Callable[[Path], dict[str, Any]]] = {
    "conversion.md": given_conversion,
    "data.md": given_data,
    "evaluation.md": given_evaluation,
    "timestep.md": given_timestep,
}


def run_shell(block: Block, folder: Path, capsys) -> None:
    """Runs the lines that call omgsr. Getting and installing it is not a test's business."""
    for program, *argv in commands(block.text):
        if program in ("git", "cd", "pip"):
            continue
        assert program == "omgsr", f"{block}: say that {program} is not run here, and why"
        if argv[0] in ("convert", "export"):  # they write folders that must not exist
            shutil.rmtree(folder / argv[argv.index("--out") + 1], ignore_errors=True)
        assert cli.main(argv) == 0, f"{block}: omgsr {' '.join(argv)}\n{capsys.readouterr().err}"


def run_python(block: Block, scope: dict[str, Any]) -> None:
    source = "\n" * block.line + block.text
    exec(compile(source, str(block.page), "exec"), scope)


def run_page(page: Path, how: tuple[str, ...], folder: Path, capsys) -> None:
    scope = GIVEN.get(page.name, lambda _: {})(folder)
    for block in blocks(page):
        if block.how in how and block.language == "bash":
            run_shell(block, folder, capsys)
        elif block.how in how and block.language == "python":
            run_python(block, scope)


def pages_with(how: str) -> list[Path]:
    return [
        page
        for page in PAGES
        if any(b.how == how and b.language in ("bash", "python") for b in blocks(page))
    ]


LONG = ("inference.md",)  # a minute: nightly


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=page.name, marks=pytest.mark.slow if page.name in LONG else ())
        for page in pages_with("run")
    ],
)
def test_the_page_runs(page, house, capsys):
    run_page(page, ("run",), house, capsys)
    if page.name == "inference.md":
        assert Image.open("large.png").size == (64, 64)
        assert Image.open("results/a.png").size == (32, 32)
        assert Image.open("wide.webp").size == (100, 100)
        assert Path("wide.compare.png").exists()


@pytest.mark.slow
@pytest.mark.parametrize("page", pages_with("slow"), ids=lambda page: page.name)
def test_the_page_runs_slowly(page, house, capsys, monkeypatch):
    monkeypatch.setitem(assets.MODELS, "nano", assets.FOLDER / "nano")
    run_page(page, ("run", "slow"), house, capsys)
