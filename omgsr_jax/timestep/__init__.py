"""The mid-timestep: the search for it, and a picture of what was found.

Begin with `optimum.search`.

optimum.py   three criteria, as means over images, and where each is smallest
picture.py   their curves as one SVG
gap.py       latents on a chain against those of training
"""

from .optimum import CRITERIA, Search, encoder, search, write

__all__ = ["CRITERIA", "Search", "encoder", "search", "write"]
