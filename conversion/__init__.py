"""Everything that knows PyTorch's formats: key maps, diffusers folders, peft adapters.

Begin with convert.py, then keymap.py. export.py is the way back.

recipes.py, backbones.py         what was published; one entry per kind of diffusers folder
configs.py, flux_configs.py      config.json files
diffusers_folder.py, tensor_files.py, peft_adapters.py, adapters.py    files
prompts.py                       prompts, embedded once
perceptual.py, inception.py      the networks of losses and metrics
parity/                          comparison with PyTorch; not in the wheel
"""
