"""Trains OMGSR as a config file says, or goes on where the work directory's run stopped.

    python scripts/train.py --config configs/tiny.py --workdir runs/tiny
    python scripts/train.py --config configs/omgsr_s_512.py:t=999 --workdir runs/t999 \
        --config.model.path=models/sd-turbo --config.model.perceptual=models/perceptual \
        --config.data.sources="('data/LSDIR',)"
    python scripts/train.py --workdir runs/tiny --export models/tiny --which best

Every setting can be overridden with --config.GROUP.NAME=VALUE. The same command again resumes from
the last checkpoint. With --export nothing is trained: a checkpoint is written as a converted model,
whose adapters `omgsr export --model models/tiny --out DIR` gives to peft.

On TPU pods, GKE and Slurm the processes find each other; elsewhere start the command once for each
process with --coordinator HOST:PORT --num_processes N --process_id I.
Exit codes: 0 finished; 2 an error in what was given; 3 stopped by a signal, to be resumed.
"""

import json
import sys
from collections.abc import Mapping
from typing import Any

from absl import app, flags, logging
from ml_collections import config_flags

from omgsr_jax.errors import InputError
from omgsr_jax.training.stopping import STOPPED, stop_requests

FLAGS = flags.FLAGS
config_flags.DEFINE_config_file("config", None, "the run, such as configs/tiny.py")
flags.DEFINE_string("workdir", None, "where the run's files go", required=True)
flags.DEFINE_string("export", None, "write the run's model into this new directory instead")
flags.DEFINE_string("which", "best", "the checkpoint to export: best, latest or a step")
flags.DEFINE_string("coordinator", None, "HOST:PORT of the first process")
flags.DEFINE_integer("num_processes", None, "how many processes there are")
flags.DEFINE_integer("process_id", None, "which of them this is, from 0")


def main(argv: list[str]) -> int:
    if not FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # Orbax tells every file at INFO
    if argv[1:]:
        raise app.UsageError(f"unknown arguments: {argv[1:]}")
    try:
        return _export() if FLAGS.export else _train()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # before the loop, which has an answer of its own
        print("stopped", file=sys.stderr)
        return STOPPED


def _train() -> int:
    from omgsr_jax.training import distributed, gpu_flags, host_memory

    gpu_flags.use()
    distributed.join(FLAGS.coordinator, FLAGS.num_processes, FLAGS.process_id)
    host_memory.keep()

    from omgsr_jax.compile_cache import keep_compiled_programs
    from omgsr_jax.cost.flops import utilisation
    from omgsr_jax.training import config, loop, work_directory
    from omgsr_jax.training.run import Run

    if FLAGS.config is None:
        raise InputError("--config is missing, such as --config configs/tiny.py")
    wanted = config.from_dict(FLAGS.config.to_dict())
    keep_compiled_programs(wanted.run.compilation_cache)
    with (
        stop_requests() as stop_requested,
        work_directory.opened(
            FLAGS.workdir, wanted.to_dict(), wanted.run, config.TrainConfig().to_dict()
        ) as saved,
    ):
        run = Run.of(wanted)
        print(f"{wanted.name}: {distributed.description(run.mesh)}", flush=True)
        task = run.task(_metrics(), utilisation(run.blueprint))
        outcome = loop.train(task, wanted.run, saved, stop_requested)
    if outcome.finished:
        return 0
    print(f"stopped after step {outcome.step}; the same command goes on from there", flush=True)
    return STOPPED


def _export() -> int:
    from omgsr_jax.training.export import export

    step = export(FLAGS.workdir, FLAGS.which, FLAGS.export)
    print(json.dumps({"step": step, "model": FLAGS.export}))
    return 0


def _metrics() -> Mapping[str, Any]:
    from omgsr_jax.evaluation.fidelity import psnr, ssim

    return {"psnr": psnr, "ssim": ssim}


if __name__ == "__main__":
    app.run(main)
