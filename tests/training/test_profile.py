"""The profiler's trace, as TensorBoard's plugin and xprof look for it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
# In a process of its own: the profiler may bring down one that has compiled thousands of programs.
_TRACED = """
import json, sys
import jax
from pathlib import Path
from tests.training import toy
folder = Path(sys.argv[1])
for steps, how in json.loads(sys.argv[2]):
    toy.run(folder, steps, **how)
paths = list((folder / "profile").glob("plugins/profile/*/*.xplane.pb"))
planes = [p for path in paths for p in jax.profiler.ProfileData.from_file(str(path)).planes]
events = [event for plane in planes for line in plane.lines for event in line.events]
print(json.dumps(sorted({dict(e.stats)["step_num"] for e in events if e.name == "train"})))
"""


def _traced_steps(folder, *runs):
    command = [sys.executable, "-c", _TRACED, str(folder), json.dumps(runs)]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("steps", [3, 50], ids=["whole", "cut off by the end of the run"])
def test_a_trace_lies_where_xprof_looks_and_holds_the_steps(steps, tmp_path):
    found = _traced_steps(tmp_path, (8, {"profile_at": 4, "profile_steps": steps}))
    assert found == list(range(4, min(4 + steps, 8)))


def test_a_run_that_goes_on_is_traced_from_where_it_goes_on(tmp_path):
    found = _traced_steps(tmp_path, (10, {}), (14, {"profile_at": 1, "profile_steps": 2}))
    assert found
    assert min(found) >= 10
