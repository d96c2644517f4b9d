"""Networks. A file is a frozen config and the NNX modules built from it; nothing does I/O.

Begin with layers.py and blocks.py, then vae.py and unet.py. How a layer is computed on a CPU, a GPU
or a TPU is in ops/: nothing else here knows a platform.
"""
