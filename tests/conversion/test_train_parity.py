"""Twenty optimiser steps here and in PyTorch, from the same weights, data and random numbers."""

import pytest

from conversion import train_parity
from conversion.convert import convert


@pytest.mark.slow
@pytest.mark.parametrize("quirks", ["none", "published"])
def test_training_agrees_with_pytorch(quirks, tiny_base, tmp_path):
    """Losses within 1e-3 at every step; final weights with a cosine of at least 0.9999. AdamW
    divides by the gradient's size, which blows rounding up where a gradient is almost 0."""
    convert(str(tiny_base), tmp_path / "model")
    config = train_parity.small_config(str(tmp_path / "model"), quirks=quirks)
    found = train_parity.compare(tiny_base, config)
    print(quirks, found.worst, found.cosines, found.update_cosines)
    assert len(found.ours) == len(found.theirs) == 20
    assert max(found.worst.values()) <= 1e-3
    assert min(found.cosines.values()) >= 0.9999
    assert min(found.update_cosines.values()) >= 0.999
