"""What the published training code does that is not correct, where it changes the networks.

Besides, its discriminator gets the generator's gradient, in v2 after it has seen the fake first
(losses/adversarial.py), its networks get images in other ranges (perceptual.py), and there is no
warm-up (blueprint.py).
"""

from dataclasses import replace

from jax import Array

from ..generator import OMGSR, OMGSRConfig
from ..process import FlowMatching


class PublishedF(OMGSR):
    """OMGSR-F, which the published code trains on restored images that are not clipped, and whose
    latents it keeps in bf16 all the way to the decoder."""

    def decode(self, z_p: Array) -> Array:
        assert isinstance(self.process, FlowMatching)
        config, stored = self.vae.config, self.process.stored
        z = stored(stored(z_p / config.scaling_factor) + config.shift_factor)
        return self.decode_unclipped(z)


def as_published(config: OMGSRConfig) -> tuple[OMGSRConfig, type[OMGSR]]:
    """The generator that the published code trains: what describes it, and its class."""
    published = replace(config, process=config.process.as_published(training=True))
    return published, PublishedF if isinstance(config.process, FlowMatching) else OMGSR
