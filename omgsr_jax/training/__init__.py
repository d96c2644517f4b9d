"""Training OMGSR: a sharded state, one compiled step, and a loop that can be resumed exactly.

run.py          begin here: a run put together from its config
config.py       what a run is; config_dict.py reads it from files and the command line
blueprint.py    its networks, with shapes in place of arrays; published.py: quirks in them
layout.py       where its arrays lie on its devices
state.py        what it trains and remembers, and the weights that it does not
step.py         one optimiser step, a pure function
loop.py         the loop around a step: data, logs, validation, checkpoints
slices.py       commands that train several runs in turn
timing.py       who waits for whom
skipping.py     steps that are not finite
stopping.py     signals
validation.py   a fixed set of pairs, restored now and then
work_directory.py    whose it is, and that one run at a time writes into it
checkpoints.py  what is written for the run itself; digests.py: whether it is whole
restoring.py    a state back on its devices; nearby.py: emergency checkpoints on hosts' own disks
log.py          what is written for people; appended.py: into files that grow, also in a bucket
goodput.py      where a run's seconds went; profile.py: a trace of some steps
export.py       its model, from a checkpoint
distributed.py  several processes; host_memory.py: one on a CPU
gpu_flags.py    XLA's flags for GPUs
pretrain/       a base from nothing
"""
