"""Everything that knows PyTorch's formats: key maps, diffusers folders, peft adapters.

Begin with convert.py, then keymap.py. export.py is the way back.

recipe_table.py, recipes.py      what was published, and which of it is taken
backbones.py                     one entry per kind of diffusers folder
configs.py, flux_configs.py, z_image_configs.py    config.json files
diffusers_folder.py, tensor_files.py, peft_adapters.py, adapters.py, relatives.py    files
prompts.py                       prompts, embedded once
perceptual.py, inception.py      the networks of losses and metrics
parity/                          comparison with PyTorch; not in the wheel
"""
