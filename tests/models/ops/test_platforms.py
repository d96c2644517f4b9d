"""What is faster where is known to models/ops alone, and there behind one function each."""

import re
from pathlib import Path

import pytest

import omgsr_jax

_PACKAGE = Path(omgsr_jax.__file__).parent
_MODELS = sorted((_PACKAGE / "models").glob("*.py"))
_QUESTION = re.compile(
    r"platform_dependent|default_backend|\bplatforms?\b|\bcuda\b|cpu|\btpu\b", re.I
)
# What chooses, and who shares an image: all else in models/ops is one of the ways to choose from.
_CHOOSERS = {"attention", "convolution", "group_norm", "product", "resize", "rows"}


@pytest.mark.parametrize("path", _MODELS, ids=lambda path: path.name)
def test_networks_and_layers_ask_for_no_platform(path):
    asked = [line for line in path.read_text().splitlines() if _QUESTION.search(line)]
    assert not asked


def test_only_the_choosing_functions_are_called_from_outside():
    sources = [p for p in _PACKAGE.rglob("*.py") if p.parent != _PACKAGE / "models" / "ops"]
    found = {
        match[1]
        for path in sources
        for match in re.finditer(r"from [.\w]*\bops(?:\.(\w+))? import", path.read_text())
    }
    assert found == _CHOOSERS
