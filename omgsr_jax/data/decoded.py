"""The images of a source, decoded; those of a small source once for all epochs."""

import numpy as np

from .images import decode_image
from .sources import Source

_ROOM = 2**29  # bytes of each process or worker


class DecodedImages:
    """Pixels (h w 3 uint8, not to be written to) by number, with the name.

    They stay in memory where all of a source would have room. Of a larger one each image comes once
    an epoch, and few of those that had been kept would be met again.
    """

    def __init__(self, source: Source, room: int = _ROOM):
        self._source = source
        self._room = room
        self._kept: dict[int, tuple[str, np.ndarray]] = {}

    def __getitem__(self, index: int) -> tuple[str, np.ndarray]:
        """Raises DamagedImageError."""
        if (kept := self._kept.get(index)) is not None:
            return kept
        name, data = self._source[index]
        image = decode_image(data, name)
        image.setflags(write=False)
        if image.nbytes * len(self._source) <= self._room:  # if all were like this one
            self._kept[index] = name, image
        return name, image
