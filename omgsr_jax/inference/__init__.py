"""Any-size upscaling: image edges, sizes, colour, batching, compiled programs.

Begin with restore.py, which is what is computed, and upscaler.py, which computes it.

loading.py, prepare.py           `load`: a converted model, adapters merged, weights cast
layout.py                        where its weights lie, when one device is too small
upscaler.py, results.py          pictures of any size, and what they took
progress.py                      how far a call is, told between programs
function.py, export.py           the same for arrays on the device, and as a file for JAX alone
passes.py, canvases.py           in which passes, on which compiled shapes
restore.py, programs.py          the function from pixels to pixels, and its compiled parts
strips.py, memory.py             the VAE in strips of rows, and when
tiling.py, resizing.py, colour.py    tiles, enlarging and colours, on the device
published.py                     what the published scripts do that is not correct
options.py, formats.py           what may be asked for, known without JAX
jobs.py, folder.py               which files, and many of them, each done or failed by itself
lookahead.py, reports.py         the next of them, and what became of each
images.py, deep_files.py         image files with all that they hold
pictures.py, labels.py           a picture in memory, pictures side by side
sizes.py                         how large
"""
