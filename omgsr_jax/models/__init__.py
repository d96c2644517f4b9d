"""Networks. A file is a frozen config and the NNX modules built from it; nothing does I/O.

Begin with layers.py and blocks.py, then vae.py and unet.py, which is OMGSR-S.

ops/                       how a thing is computed where
layers.py, blocks.py       what networks are made of
embeddings.py, stack.py    numbers as vectors; equal blocks with stacked weights
sampling.py                sampled randomness, by a key
lora.py, int8.py           adapters; weights in 8 bits
unet.py, vae.py            the generators' networks
flux.py, z_image.py        those that are transformers, with rotary.py for their positions
clip_text.py, t5.py, qwen3.py   text encoders, for conversion
features.py                what the perceptual networks share: vgg.py, alexnet.py, dinov2.py,
                           dinov3_convnext.py, inception.py
discriminator.py           heads on one of them, with spectral_norm.py
paths.py                   modules by their path
"""
