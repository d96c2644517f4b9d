"""A model with anything wrong with it is one clear sentence, and one with nothing wrong loads."""

import shutil
from pathlib import Path

import pytest

from omgsr_jax.converted import read_card
from omgsr_jax.descriptions import build
from omgsr_jax.errors import InputError
from omgsr_jax.models.flux import FluxConfig

from .bases import BASES
from .corpus import assert_same_weights, assert_sentences
from .judge import Answer, assert_sentence, command
from .models import CONVERTED


def test_the_corpus_is_as_large_as_was_promised():
    assert len(CONVERTED) + len(BASES) >= 100
    for cases in (CONVERTED, BASES):
        names = [case.name for case in cases]
        assert not {name for name in names if names.count(name) > 1}


def test_every_damaged_converted_model_is_one_sentence(originals, tmp_path):
    """`omgsr info` says it, or reading the weights does, with which `export` begins."""
    model, _ = originals

    def ask(folder: Path, out: Path) -> Answer:
        told = command("info", folder)
        return told if told.code else command("export", "--model", folder, "--out", out)

    assert_sentences(CONVERTED, model, tmp_path, ask)


def test_every_damaged_folder_to_convert_is_one_sentence(originals, tmp_path):
    _, base = originals
    assert_sentences(BASES, base, tmp_path, convert)


@pytest.mark.slow
def test_a_model_with_nothing_wrong_has_the_weights_that_it_had(originals, tmp_path):
    model, base = originals

    def ask(folder: Path, out: Path) -> Answer:
        shutil.copytree(folder, out, symlinks=True)
        return Answer(int(read_card(out) != read_card(model)), "", "another card")

    assert_same_weights(CONVERTED, model, tmp_path, ask, model)
    assert_same_weights(BASES, base, tmp_path, convert, model)


def test_a_reason_of_any_length_is_one_sentence():
    fields = vars(FluxConfig()) | {"axes_dims_rope": [2] * 4000}
    with pytest.raises(InputError, match="axes_dims_rope") as told:
        build(FluxConfig, fields, "config.json")
    assert_sentence(str(told.value))


def convert(folder: Path, out: Path) -> Answer:
    return command("convert", "--base", folder, "--adapter", folder, "--out", out)
