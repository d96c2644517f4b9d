"""The prompt of Z-Image: Qwen3 against transformers, chat template and tokenizer included."""

import json
import shutil

import numpy as np
import pytest
import torch
from diffusers import ZImagePipeline
from transformers import AutoTokenizer, Qwen3Model

from conversion import prompts
from conversion.diffusers_folder import DiffusersFolder
from conversion.parity.blocks import block_outputs, compare_blocks
from omgsr_jax import converted
from omgsr_jax.errors import InputError
from tests.helpers import assert_blocks_agree, read_network, relative_error

from .conftest import SAID


@pytest.fixture(scope="module")
def theirs(z_base) -> Qwen3Model:
    return Qwen3Model.from_pretrained(z_base / "text_encoder").eval()


def test_every_block_of_qwen3_agrees_with_transformers(z_base, theirs):
    ours = read_network("qwen3", z_base / "text_encoder")
    ids = np.random.default_rng(0).integers(0, 260, (2, 40))
    result, blocks = block_outputs(ours, lambda m, ids: m(ids), ids)
    outputs = []

    def run() -> None:
        outputs.append(theirs(torch.tensor(ids), output_hidden_states=True).hidden_states[-2])

    assert_blocks_agree(compare_blocks(blocks, theirs, run), tolerance=1e-5, at_least=25)
    assert relative_error(result, outputs[0].detach().numpy()) <= 1e-5


def test_prompt_embeddings_are_those_of_the_pipeline(z_base, z_model, theirs):
    ours = converted.read_prompt(z_model)
    tokenizer = AutoTokenizer.from_pretrained(z_base / "tokenizer")
    parts = {"scheduler": None, "vae": None, "transformer": None}
    pipeline = ZImagePipeline(**parts, tokenizer=tokenizer, text_encoder=theirs)
    with torch.no_grad():
        ((expected,), _) = pipeline.encode_prompt(SAID["prompt"], "cpu", False)
    assert ours["context"].shape == expected.shape
    assert relative_error(ours["context"], expected.numpy()) <= 1e-5


def test_a_tokenizer_without_a_template_is_an_error(z_base, tmp_path):
    base = shutil.copytree(z_base, tmp_path / "base")
    for name in ("chat_template.jinja", "tokenizer_config.json"):
        path = base / "tokenizer" / name
        if path.suffix == ".jinja":
            path.unlink()
        else:
            config = json.loads(path.read_text())
            path.write_text(json.dumps({k: v for k, v in config.items() if "template" not in k}))
    with pytest.raises(InputError, match="holds no tokenizer that can be read"):
        prompts.for_z_image(DiffusersFolder(str(base)), "")
