"""The prompt of FLUX: T5 and pooled CLIP-L against transformers, tokenizers included."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, CLIPTextModel, T5EncoderModel

from conversion import prompts
from conversion.diffusers_folder import DiffusersFolder
from conversion.parity.blocks import block_outputs, compare_blocks
from omgsr_jax.models.t5 import distance_bucket
from tests.helpers import assert_blocks_agree, read_network, relative_error


def test_every_block_of_t5_agrees_with_transformers(flux_base):
    theirs = T5EncoderModel.from_pretrained(flux_base / "text_encoder_2").eval()
    ours = read_network("t5", flux_base / "text_encoder_2")
    ids = np.random.default_rng(0).integers(0, 260, (2, 40))  # far enough for every bucket
    result, blocks = block_outputs(ours, lambda m, ids: m(ids), ids)
    outputs = []
    errors = compare_blocks(
        blocks, theirs, lambda: outputs.append(theirs(torch.tensor(ids)).last_hidden_state)
    )
    assert_blocks_agree(errors, tolerance=1e-5, at_least=20)
    assert relative_error(result, outputs[0].detach().numpy()) <= 1e-5


def test_distances_fall_into_the_buckets_of_transformers():
    from transformers.models.t5.modeling_t5 import T5Attention

    distance = np.arange(-300, 301)
    expected = T5Attention._relative_position_bucket(torch.tensor(distance), True, 32, 128)
    np.testing.assert_array_equal(distance_bucket(jnp.asarray(distance), 32, 128), expected)


@pytest.mark.parametrize("prompt", ["", "sharp focus, vibrant colors"])
def test_prompt_embeddings_are_those_of_the_pipeline(flux_base, prompt):
    ours = prompts.for_flux(DiffusersFolder(str(flux_base)), prompt)

    def ids(folder):
        tokenizer = AutoTokenizer.from_pretrained(flux_base / folder)
        return tokenizer(
            prompt, padding="max_length", truncation=True, return_tensors="pt"
        ).input_ids

    with torch.no_grad():
        pooled = CLIPTextModel.from_pretrained(flux_base / "text_encoder")(ids("tokenizer"))
        tokens = T5EncoderModel.from_pretrained(flux_base / "text_encoder_2")(ids("tokenizer_2"))
    assert relative_error(ours["pooled"], pooled.pooler_output[0].numpy()) <= 1e-5
    assert relative_error(ours["context"], tokens.last_hidden_state[0].numpy()) <= 1e-5
