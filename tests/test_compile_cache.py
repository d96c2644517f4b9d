"""One place decides where compiled programs are kept."""

from types import SimpleNamespace

import pytest

from omgsr_jax import compile_cache

_OPTION = "jax_compilation_cache_dir"


@pytest.fixture
def options(monkeypatch):
    """JAX's, as nobody has set them."""
    found = {_OPTION: None}
    config = SimpleNamespace(values=found, update=found.__setitem__)
    monkeypatch.setattr(compile_cache, "jax", SimpleNamespace(config=config))
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    return found


@pytest.mark.parametrize(
    ("where", "expected"),
    [("auto", "/cache/omgsr-jax"), ("gs://bucket/programs", "gs://bucket/programs"), ("", None)],
)
def test_programs_are_kept_where_the_config_says(options, where, expected):
    compile_cache.keep_compiled_programs(where)
    assert options[_OPTION] == expected


def test_what_jax_is_told_already_stays(options):
    options[_OPTION] = "/mine"
    compile_cache.keep_compiled_programs()
    assert options == {_OPTION: "/mine"}
