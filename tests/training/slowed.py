"""scripts/train.py, whose process 1 takes long over its data; run by test_processes.py."""

import runpy
import sys
import time

from omgsr_jax.data.pipeline import Examples

if "--process_id=1" in sys.argv:
    _found = Examples._found

    def _slowly(self, position):
        time.sleep(6)  # more than a step takes on a busy machine
        return _found(self, position)

    Examples._found = _slowly

sys.argv[0] = "scripts/train.py"
runpy.run_path(sys.argv[0], run_name="__main__")
