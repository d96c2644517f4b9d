"""Whatever is wrong with the user's files ends in one clear error, with nothing half-written."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from conversion.parity import random_checkpoints
from conversion.parity.random_checkpoints import PRESETS
from omgsr_jax import cli, converted
from omgsr_jax.errors import InputError

UNET = "unet/diffusion_pytorch_model.safetensors"
ADAPTER = "unet_lora_adapter"


@pytest.fixture
def base(tiny_base, tmp_path):
    """A copy of the checkpoint to damage."""
    return Path(shutil.copytree(tiny_base, tmp_path / "base"))


@pytest.fixture
def adapter(tiny_adapter, tmp_path):
    return Path(shutil.copytree(tiny_adapter, tmp_path / "adapter"))


@pytest.fixture
def fails(tmp_path, capsys):
    """Runs `omgsr convert`, which must fail and leave nothing; returns what it says."""

    def run(base, *options, adapter=None):
        capsys.readouterr()  # what making the checkpoints printed
        before = set(tmp_path.iterdir())
        argv = ["convert", "--base", str(base), "--out", str(tmp_path / "out"), *options]
        code = cli.main(argv + (["--adapter", str(adapter)] if adapter else []))
        assert code == 1
        assert set(tmp_path.iterdir()) == before, "something was left behind"
        message = capsys.readouterr().err
        assert message.startswith("omgsr convert: ")
        assert "Traceback" not in message
        return message

    return run


def _edit_tensors(path: Path, edit) -> None:
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path)


def _edit_json(path: Path, **fields) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_all_mismatched_keys_are_listed_at_once(base, fails):
    def edit(tensors):
        del tensors["conv_in.bias"], tensors["mid_block.resnets.0.conv1.weight"]
        tensors["surprise.weight"] = np.zeros(3, np.float32)
        tensors["conv_out.weight"] = np.zeros((4, 16, 3, 3), np.float32)

    _edit_tensors(base / UNET, edit)
    message = fails(base)
    assert "2 keys missing:\n    conv_in.bias\n    mid_block.resnets.0.conv1.weight" in message
    assert "1 key not known here:\n    surprise.weight" in message
    assert "conv_out.weight: (4, 16, 3, 3), expected (4, 32, 3, 3)" in message


@pytest.mark.parametrize("kept", [0, 5, 100, 200_000], ids="{} bytes".format)
def test_a_truncated_file_is_named(base, fails, kept):
    path = base / UNET
    path.write_bytes(path.read_bytes()[:kept])
    message = fails(base)
    assert UNET in message
    assert "Fetch it again" in message


def test_a_damaged_header_is_named(base, fails):
    path = base / UNET
    data = bytearray(path.read_bytes())
    data[8:12] = b"@@@@"
    path.write_bytes(data)
    assert f"{UNET} has a damaged safetensors header" in fails(base)


def test_a_pickle_is_refused_unless_allowed(base, fails, tmp_path):
    tensors = {key: torch.from_numpy(value) for key, value in load_file(base / UNET).items()}
    (base / UNET).unlink()
    torch.save(tensors, base / "unet" / "diffusion_pytorch_model.bin")
    message = fails(base)
    assert "diffusion_pytorch_model.bin is a pickle" in message
    assert "--allow-pickle" in message
    argv = ["convert", "--base", str(base), "--out", str(tmp_path / "out"), "--allow-pickle"]
    assert cli.main(argv) == 0


def test_a_pickle_under_a_safetensors_name_is_refused(base, fails):
    torch.save({"x": torch.zeros(3)}, base / UNET)
    assert "is a pickle under a safetensors name" in fails(base)


def test_an_adapter_for_another_base_is_refused(base, fails, tmp_path):
    preset = PRESETS["tiny"]
    wide = random_checkpoints.Preset(
        backbone=preset.backbone | {"block_out_channels": [32, 64, 128], "layers_per_block": 2},
        **{name: getattr(preset, name) for name in vars(preset) if name != "backbone"},
    )
    random_checkpoints.write_base(tmp_path / "other", wide)
    random_checkpoints.write_adapters(tmp_path / "foreign", tmp_path / "other", wide)
    message = fails(base, adapter=tmp_path / "foreign")
    assert "does not fit this base; was it trained on another one?" in message
    assert "not known here" in message
    assert "of the wrong shape" in message


def test_a_folder_that_is_no_adapter_is_refused(base, fails, tmp_path):
    message = fails(base, adapter=tmp_path)
    assert "is not an OMGSR adapter: expected the sub-folders vae_encoder_lora_adapter" in message


def test_adapter_features_that_change_the_result_are_refused(base, adapter, fails):
    _edit_json(adapter / ADAPTER / "adapter_config.json", use_dora=True, rank_pattern={"conv1": 2})
    message = fails(base, adapter=adapter)
    assert "adapter_config.json asks for what is not supported" in message
    assert "use_dora = True" in message
    assert "rank_pattern = {'conv1': 2}" in message


@pytest.mark.parametrize(
    ("part", "fields", "expected"),
    [
        ("unet", {"brand_new_field": 1}, "fields that are not known here: brand_new_field"),
        ("vae", {"act_fn": "mish"}, "act_fn = 'mish' (only 'silu')"),
        ("unet", {"class_embed_type": "timestep"}, "class_embed_type = 'timestep' (only None)"),
        ("unet", {"down_block_types": ["K", "K", "K"]}, "down_block_types K are not supported"),
        ("vae", {"block_out_channels": [16, 32]}, "down_block_types must be DownEncoderBlock2D"),
        ("text_encoder", {"hidden_act": "mish"}, "hidden_act 'mish' is not supported"),
    ],
)
def test_configs_that_ask_for_more_than_there_is_are_refused(base, fails, part, fields, expected):
    _edit_json(base / part / "config.json", **fields)
    message = fails(base)
    assert f"{part}/config.json" in message
    assert expected in message


def test_a_scheduler_that_predicts_something_else_is_refused(base, fails):
    _edit_json(base / "scheduler" / "scheduler_config.json", prediction_type="v_prediction")
    assert "prediction_type = 'v_prediction'" in fails(base)
    _edit_json(base / "scheduler" / "scheduler_config.json", prediction_type="sample")
    assert "prediction_type = 'sample' (only 'epsilon')" in fails(base)


def test_a_base_without_a_recipe_asks_for_what_it_cannot_know(base, fails):
    _edit_json(base / "scheduler" / "scheduler_config.json", _class_name="DDIMScheduler")
    message = fails(base, "--prompt", "a photo")
    assert "say --mid-timestep and --process-size yourself" in message


def test_a_mid_timestep_out_of_range_is_refused(base, fails):
    assert "must be within 0 .. 999, not 1000" in fails(base, "--mid-timestep", "1000")


def test_a_folder_that_is_not_a_model_is_refused(fails, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "is not a diffusers model: expected sub-folders" in fails(tmp_path / "empty")


def test_a_missing_folder_and_a_hub_that_cannot_be_reached_are_told_apart(fails, tmp_path):
    assert "is neither a folder nor a hub id" in fails(tmp_path / "nowhere")
    assert "nobody/nothing cannot be fetched: HF_HUB_OFFLINE is set" in fails("nobody/nothing")


def test_lost_shards_are_named(base, fails):
    index = base / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    (base / UNET).unlink()
    index.write_text(json.dumps({"weight_map": {"conv_in.bias": "part-1.safetensors"}}))
    assert "lists shards that are not there: part-1.safetensors" in fails(base)


def test_no_disk_space_is_noticed_before_anything_is_written(base, fails, monkeypatch):
    usage = shutil.disk_usage(base)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    assert "of disk space, 0.0 GB are free" in fails(base)


def test_a_disk_that_fills_up_midway_leaves_nothing(tiny_base, tmp_path):
    """No file may grow beyond 64 kB, which is how a full disk looks to the writer."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536)); "
    command = f"convert --base {tiny_base} --out {tmp_path / 'out'}"
    run = _omgsr(limit, command).communicate(timeout=300)
    assert "could not be written" in run[1], run
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_killed_conversion_leaves_nothing_that_loads(tiny_base, tmp_path):
    out = tmp_path / "out"
    process = _omgsr("", f"convert --base {tiny_base} --out {out}")
    partial = tmp_path / ".out.partial"
    while process.poll() is None and not partial.exists():
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not out.exists()
    assert partial.exists(), "the conversion was over before it could be killed"
    with pytest.raises(InputError, match="is not a converted model"):
        converted.read(partial)
    assert cli.main(["convert", "--base", str(tiny_base), "--out", str(out)]) == 0
    assert list(tmp_path.iterdir()) == [out]


def test_an_existing_output_is_never_overwritten(base, fails, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").touch()
    assert "exists already" in fails(base)


def _omgsr(before: str, command: str) -> subprocess.Popen:
    program = f"{before}import sys; from omgsr_jax.cli import main; sys.exit(main())"
    return subprocess.Popen(
        [sys.executable, "-c", program, *command.split()],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
