"""Checkpoints and converted models on a hub: the bytes that are needed come, and no others."""

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import pytest
from huggingface_hub import constants

import omgsr_jax
from conversion import backbones, recipes
from conversion.diffusers_folder import DiffusersFolder
from conversion.parity import random_checkpoints
from omgsr_jax import assets, cli, converted
from omgsr_jax.errors import InputError
from tests.fake_hub import files_of

FIRST, SECOND = recipes.SD21_BASE.sources
_SD21 = {**random_checkpoints.PRESETS["sd21-base"].scheduler}
_WEIGHTS = "diffusion_pytorch_model.safetensors"

# What is read of a checkpoint like SD2.1-base.
NEEDED = {
    "scheduler/scheduler_config.json",
    "unet/config.json",
    f"unet/{_WEIGHTS}",
    "vae/config.json",
    f"vae/{_WEIGHTS}",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
    "tokenizer/tokenizer_config.json",
}
# What else lies there, by the names of the published ones.
_BESIDE = (
    "README.md",
    "model_index.json",
    "sd_turbo.safetensors",
    "v2-1_512-ema-pruned.safetensors",
    "v2-1_512-nonema-pruned.ckpt",
    "feature_extractor/preprocessor_config.json",
    "text_encoder/model.fp16.safetensors",
    "text_encoder/pytorch_model.bin",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "unet/diffusion_pytorch_model.non_ema.safetensors",
    "unet/diffusion_pytorch_model.bin",
    "vae/diffusion_pytorch_model.fp16.safetensors",
    "tokenizer/custom.py",
)


def omgsr(*argv) -> int:
    return cli.main([str(arg) for arg in argv])


@pytest.fixture(scope="module")
def sd21(tiny_base):
    """A small SD2.1-base as it lies on the hub."""
    files = files_of(tiny_base) | dict.fromkeys(_BESIDE, b"not needed")
    return files | {"scheduler/scheduler_config.json": json.dumps(_SD21).encode()}


@pytest.fixture(scope="module")
def zipped(tiny_base, tmp_path_factory) -> Path:
    """Adapters on it with the published ranks."""
    folder = tmp_path_factory.mktemp("adapters")
    preset = dataclasses.replace(
        random_checkpoints.PRESETS["tiny"], encoder_rank=16, backbone_rank=32
    )
    random_checkpoints.write_adapters(folder / "adapter", tiny_base, preset)
    return Path(shutil.make_archive(str(folder / "adapter"), "zip", folder / "adapter"))


@pytest.fixture
def known(sd21, monkeypatch):
    """Its digests stand in the table for those of the real one."""
    for name in recipes.SD21_BASE.digests:
        if name in NEEDED:
            digest = hashlib.sha256(sd21[name].read_bytes()).hexdigest()
            monkeypatch.setitem(recipes.SD21_BASE.digests, name, digest)


def test_a_recipe_fetches_what_it_reads_from_the_mirror_that_has_it(
    fake_hub, sd21, zipped, known, tmp_path, capsys
):
    fake_hub.repositories[SECOND] = sd21
    out = tmp_path / "model"
    argv = ["convert", "--recipe", "omgsr-s-512-v2", "--adapter", zipped, "--out", out]
    assert omgsr(*argv) == 0
    assert fake_hub.names_sent() == NEEDED
    assert fake_hub.bytes_sent() == fake_hub.bytes_of(SECOND, NEEDED)
    printed = capsys.readouterr()
    assert f"{FIRST} cannot be fetched: the hub has no such model" in printed.err
    card = converted.read_card(out)
    assert (card.generator.mid_timestep, card.prompt, card.process_size) == (273, "", 512)
    assert (card.origin.recipe, card.origin.base) == ("omgsr-s-512-v2", SECOND)
    expected = {name: fake_hub.content(SECOND, name) for name in NEEDED}
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in expected.items()}
    assert card.sources.items() >= digests.items()
    readme = (out / "README.md").read_text()
    for words in (
        "---\nlicense: openrail++\n",
        f"\nbase_model: {SECOND}\n",
        "\nlibrary_name: omgsr-jax\n",
        "\npipeline_tag: image-to-image\n",
        "| recipe | omgsr-s-512-v2 |",
        "| mid-timestep t_m | 273 |",
        "omgsr upscale photo.jpg",
        digests[f"unet/{_WEIGHTS}"],
    ):
        assert words in readme
    # Everything is in the cache now, which serves where the hub does not.
    fake_hub.sent.clear()
    fake_hub.down.add(SECOND)
    assert files_of(backbones.fetched(SECOND)).keys() >= NEEDED
    assert not fake_hub.sent


def test_a_conversion_that_was_cut_off_fetches_the_rest(fake_hub, sd21, known, tmp_path, capsys):
    fake_hub.repositories[FIRST] = sd21
    argv = ["convert", "--recipe", "omgsr-s-512-v2", "--out", tmp_path / "model"]
    fake_hub.lost_before = f"unet/{_WEIGHTS}"
    assert omgsr(*argv) == 1
    assert "the hub could not be reached" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()
    before = fake_hub.names_sent()
    assert {"text_encoder/model.safetensors", f"vae/{_WEIGHTS}"} <= before < NEEDED
    fake_hub.lost_before = None
    assert omgsr(*argv) == 0
    assert fake_hub.bytes_sent() == fake_hub.bytes_of(FIRST, NEEDED)
    card = converted.read_card(tmp_path / "model")
    assert (card.generator.mid_timestep, card.origin.recipe) == (273, "")  # a base alone


@pytest.mark.parametrize("how", ["down", "gated", "digests"])
def test_another_mirror_takes_over(fake_hub, sd21, known, how, monkeypatch):
    fake_hub.repositories |= {FIRST: sd21, SECOND: sd21}
    if how == "digests":
        other = b"another training of it"
        fake_hub.repositories[FIRST] = sd21 | {f"vae/{_WEIGHTS}": other}
    else:
        getattr(fake_hub, how).add(FIRST)
    from conversion.convert import _open

    said = []
    folder = _open(None, recipes.named("omgsr-s-512-v2"), False, said.append)
    assert folder.hub_id == SECOND
    expected = {
        "down": "the hub could not be reached",
        "gated": f"accept its licence at https://huggingface.co/{FIRST}",
        "digests": f"does not hold what its name says: its vae/{_WEIGHTS} has the sha256",
    }
    assert len(said) == 1
    assert said[0].startswith(FIRST)
    assert expected[how] in said[0]
    assert fake_hub.bytes_of(SECOND, NEEDED) == sum(
        count for (repository, _), count in fake_hub.sent.items() if repository == SECOND
    )


def test_where_no_mirror_has_it_all_of_them_are_named(fake_hub, tmp_path, capsys):
    assert omgsr("convert", "--recipe", "omgsr-s-512-v2", "--out", tmp_path / "model") == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("omgsr convert: ")
    assert FIRST in last
    assert SECOND in last


def test_of_flux_half_is_left_on_the_hub(fake_hub):
    name = recipes.FLUX_DEV.sources[0]
    index = "transformer/diffusion_pytorch_model.safetensors.index.json"
    shards = [f"diffusion_pytorch_model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    text_shards = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    text_index = "text_encoder_2/model.safetensors.index.json"
    needed = {
        "scheduler/scheduler_config.json",
        "transformer/config.json",
        "vae/config.json",
        f"vae/{_WEIGHTS}",
        index,
        *(f"transformer/{shard}" for shard in shards),
        text_index,
        *(f"text_encoder_2/{shard}" for shard in text_shards),
        "text_encoder_2/config.json",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        *(f"tokenizer/{n}" for n in ("merges.txt", "vocab.json", "tokenizer_config.json")),
        *(f"tokenizer_2/{n}" for n in ("spiece.model", "tokenizer.json", "tokenizer_config.json")),
    }
    beside = {"flux1-dev.safetensors", "ae.safetensors", "model_index.json", "dev_grid.jpg"}
    files = {path: path.encode() * 20 for path in needed | beside}
    for path, names in ((index, shards), (text_index, text_shards)):
        files[path] = json.dumps({"weight_map": {n: n for n in names}}).encode()
    files["scheduler/scheduler_config.json"] = b"{}"
    files["transformer/config.json"] = b'{"_class_name": "FluxTransformer2DModel"}'
    fake_hub.repositories[name] = files
    backbones.fetched(name)
    assert fake_hub.names_sent() == needed
    assert fake_hub.bytes_sent() == fake_hub.bytes_of(name, needed)


def test_a_gated_base_says_where_its_licence_is(fake_hub, tmp_path, capsys):
    name = recipes.FLUX_DEV.sources[0]
    names = ("scheduler/scheduler_config.json", "transformer/config.json")
    fake_hub.repositories[name] = dict.fromkeys(names, b"{}")
    fake_hub.gated.add(name)
    assert omgsr("convert", "--recipe", "omgsr-f-1024-v1", "--out", tmp_path / "model") == 1
    said = capsys.readouterr().err
    assert f"accept its licence at https://huggingface.co/{name}, and log in with `hf auth" in said


def test_a_pickle_on_the_hub_is_not_fetched(fake_hub, sd21):
    files = {name: data for name, data in sd21.items() if name != f"unet/{_WEIGHTS}"}
    del files["unet/diffusion_pytorch_model.fp16.safetensors"]
    del files["unet/diffusion_pytorch_model.non_ema.safetensors"]
    fake_hub.repositories[FIRST] = files
    with pytest.raises(InputError, match=r"unet/diffusion_pytorch_model\.bin is a pickle"):
        DiffusersFolder(FIRST).fetch(["unet"])
    assert not fake_hub.sent
    DiffusersFolder(FIRST, allow_pickle=True).fetch(["unet"])
    assert fake_hub.names_sent() == {"unet/config.json", "unet/diffusion_pytorch_model.bin"}


MODEL = "user/omgsr-nano"


@pytest.fixture
def published(fake_hub):
    """nano on the hub, among other files."""
    files = files_of(assets.FOLDER / "nano")
    fake_hub.repositories[MODEL] = files | {
        "exported/unet/model.safetensors": b"x" * 10_000,
        "params.zip": b"x" * 10_000,
        "sample.png": b"x" * 10_000,
    }
    return fake_hub


def test_a_converted_model_is_fetched_once_and_alone(published, monkeypatch, capsys):
    needed = {n for n in published.repositories[MODEL] if n.startswith("params/")} | {"omgsr.json"}
    assert omgsr("info", f"{MODEL}@v1") == 0
    assert "mid-timestep:   284" in capsys.readouterr().out
    assert published.names_sent() == needed
    assert published.bytes_sent() == published.bytes_of(MODEL, needed)
    assert omgsr_jax.load(MODEL).process_size == 512
    assert published.bytes_sent() == published.bytes_of(MODEL, needed)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert assets.model_directory(MODEL).startswith(constants.HF_HUB_CACHE)


def test_what_is_no_converted_model_on_the_hub_is_said_to_be_none(fake_hub, capsys):
    fake_hub.repositories["user/base"] = {"unet/config.json": b"{}"}
    assert omgsr("info", "user/base") == 1
    assert "user/base on the hub is not a converted model: it has no omgsr.json" in (
        capsys.readouterr().err
    )
    assert omgsr("info", "models/mistyped") == 1
    assert "'models/mistyped' is not a local directory, and models/mistyped cannot be fetched" in (
        capsys.readouterr().err
    )


def test_a_card_cannot_have_files_outside_fetched(published, capsys):
    card = json.loads(published.content(MODEL, "omgsr.json"))
    card["files"]["params/../../../x"] = {"bytes": 1, "sha256": "0" * 64}
    published.repositories[MODEL] |= {"omgsr.json": json.dumps(card).encode()}
    assert omgsr("info", MODEL) == 1
    assert "which is not inside the folder" in capsys.readouterr().err


def test_a_model_on_the_hub_keeps_its_mid_timestep(capsys):
    with pytest.raises(SystemExit) as stop:
        omgsr("timestep", "--model", MODEL, "--data", ".", "--write")
    assert stop.value.code == 2
    assert f"{MODEL} is on the hub; write into a directory of your own" in capsys.readouterr().err
