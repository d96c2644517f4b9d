"""The CLIP text encoder against transformers: OpenCLIP-H's kind, CLIP-L's kind, the legacy kind."""

import numpy as np
import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModel

from conversion.parity.blocks import block_outputs, compare_blocks
from conversion.parity.random_checkpoints import PRESETS, enliven
from tests.helpers import assert_blocks_agree, read_network, relative_error

_SD2 = PRESETS["tiny"].text
_CLIP_L = _SD2 | {"hidden_act": "quick_gelu"}
_LEGACY = _SD2 | {"eos_token_id": 2}


@pytest.fixture(scope="module", params=[_SD2, _CLIP_L, _LEGACY], ids=["sd2", "clip-l", "legacy"])
def encoders(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    torch.manual_seed(0)
    theirs = CLIPTextModel(CLIPTextConfig(**request.param)).eval()
    enliven(theirs)
    theirs.save_pretrained(folder)
    return read_network("text", folder), theirs


def test_tokens_and_pooled_text_agree_with_transformers(encoders):
    ours, theirs = encoders
    ids = np.random.default_rng(0).integers(3, 500, (2, 77))
    ids[0, 9:] = 513  # one short text, one that fills all places
    ids[1, -1] = 513
    (tokens, pooled), blocks = block_outputs(ours, lambda m, ids: m(ids), ids)
    found = []
    errors = compare_blocks(
        blocks, theirs, lambda: found.append(theirs(torch.from_numpy(ids))), prefix="text_model."
    )
    assert_blocks_agree(errors, tolerance=1e-5, at_least=30)
    assert relative_error(tokens, found[0].last_hidden_state.numpy()) <= 1e-5
    assert relative_error(pooled, found[0].pooler_output.numpy()) <= 1e-5
