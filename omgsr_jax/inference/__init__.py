"""Any-size upscaling: image edges, sizes, tiles, colour, batching, compiled programs.

Begin with upscaler.py: `load` and `Upscaler`.

prepare.py                       a converted model made ready: adapters merged, weights cast
layout.py                        where its weights lie, when one device is too small
options.py, formats.py           what may be asked for, known without JAX
published.py                     what the published scripts do that is not correct
jobs.py, folder.py               which files, and many of them, each done or failed by itself
lookahead.py, reports.py         the next of them, and what became of each
images.py, deep_files.py         image files with all that they hold
pictures.py, colour.py, labels.py    a picture in memory, its colours, pictures side by side
sizes.py, tiling.py              how large, and where tiles lie
engine.py, programs.py           images of any size with a handful of compiled programs
canvas_vae.py, vae_tiles.py      the VAE on a fixed canvas, and in tiles
"""
