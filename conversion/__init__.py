"""Everything that knows PyTorch's formats: key maps, diffusers folders, peft adapters.

Begin with convert.py, then keymap.py.

recipes.py, backbones.py         what a base implies; one entry per kind of diffusers folder
configs.py, flux_configs.py      config.json files
diffusers_folder.py, tensor_files.py, peft_adapters.py    files
prompts.py                       prompts, embedded once
perceptual.py, inception.py      the networks of losses and metrics
parity/                          comparison with PyTorch; not in the wheel
"""
