"""One process of a run that only starts; run by test_distributed.py. Prints what it found.

JAX looks for other hosts' addresses where a machine has TPU chips. Here there are none, so that it
has set what keeps it from asking; a TPU VM has not.
"""

import json
import os

import jax

from omgsr_jax.training import distributed
from omgsr_jax.training.config import MeshConfig
from omgsr_jax.training.layout import make_mesh

if "GCE_METADATA_IP" in os.environ:
    del os.environ["TPU_SKIP_MDS_QUERY"]
distributed.join()
mesh = make_mesh(MeshConfig(data=-1))
print(
    json.dumps(
        {
            "processes": jax.process_count(),
            "process": jax.process_index(),
            "devices": jax.device_count(),
            "visible": jax.config.values["jax_cuda_visible_devices"],
            "description": distributed.description(mesh),
        }
    )
)
