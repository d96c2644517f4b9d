"""Every loss of both papers. Images are b h w 3 in [-1, 1]; losses are fp32 scalars.

Begin with total.py, the weighted total of Eq. 16: it names all others.

latent.py, pixel.py              LDR and LRR on latents; MSE and L1 on images
frequencies.py                   errors that gather at single frequencies
lpips.py, dists.py, dv3cd.py     distances of deep features
adversarial.py, augment.py       GAN losses, and what the discriminator sees
chunks.py                        windows of images that are larger than a network's own size
"""
