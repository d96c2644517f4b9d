"""An adapter with anything wrong with it is one clear sentence, and nothing is written."""

from pathlib import Path

import pytest

from .adapters import ADAPTERS
from .corpus import Ask, assert_same_weights, assert_sentences
from .judge import Answer, command


def test_the_corpus_is_as_large_as_was_promised():
    names = [case.name for case in ADAPTERS]
    assert len(names) >= 60
    assert not {name for name in names if names.count(name) > 1}


def test_every_damaged_adapter_is_one_sentence(originals, tmp_path):
    _, base = originals
    assert_sentences(ADAPTERS, base, tmp_path, onto(base))


@pytest.mark.slow
def test_an_adapter_with_nothing_wrong_has_the_weights_that_it_had(originals, tmp_path):
    model, base = originals
    assert_same_weights(ADAPTERS, base, tmp_path, onto(base), model)


def onto(base: Path) -> Ask:
    def ask(adapter: Path, out: Path) -> Answer:
        return command(
            "convert", "--base", base, "--adapter", adapter, "--out", out, "--allow-pickle"
        )

    return ask
