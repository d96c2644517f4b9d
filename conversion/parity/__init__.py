"""Everything that compares this project with PyTorch. It may import all, and is not in the wheel.

inference.py           whole pipelines, stage by stage
blocks.py              networks, block by block
training.py            optimiser steps with injected random numbers
published/             the published scripts themselves as the other side
benchmark.py           both training steps, timed beside each other
inference_*.py         inference, timed: what, who takes part, and in which order
layer_kinds.py         time by kind of layer
workers.py             systems in processes of their own, with a time limit
torch_*.py             the PyTorch side: backbones, judges, the training loop
random_presets.py, random_checkpoints.py, random_tokenizers.py
                       small and full-size checkpoints of random weights, in the published formats
arrays.py              errors, and the order of axes
processes.py           a function in a process of its own, for its memory
"""
