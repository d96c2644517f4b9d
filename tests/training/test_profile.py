"""The profiler's trace, as TensorBoard's plugin and xprof look for it."""

import jax
import pytest

from tests.training import toy


@pytest.mark.parametrize("steps", [3, 50], ids=["whole", "cut off by the end of the run"])
def test_a_trace_lies_where_xprof_looks_and_holds_the_steps(steps, tmp_path):
    toy.run(tmp_path, 8, profile_at=4, profile_steps=steps)
    (path,) = (tmp_path / "profile").glob("plugins/profile/*/*.xplane.pb")
    data = jax.profiler.ProfileData.from_file(str(path))
    numbers = {
        dict(event.stats)["step_num"]
        for plane in data.planes
        for line in plane.lines
        for event in line.events
        if event.name == "train"
    }
    assert numbers == set(range(4, min(4 + steps, 8)))


def test_a_run_that_goes_on_is_traced_from_where_it_goes_on(tmp_path):
    toy.run(tmp_path, 10)
    toy.run(tmp_path, 14, profile_at=1, profile_steps=2)
    assert list((tmp_path / "profile").glob("plugins/profile/*/*.xplane.pb"))
