"""The images of a source, decoded; those of a small source once for all epochs."""

import numpy as np

from .images import decode_image
from .sources import Source

_ROOM = 2**28  # bytes of each process or worker


class DecodedImages:
    """Pixels (h w 3 uint8, not to be written to) by number, with the name.

    The first ones that come stay in memory until there is no more room. Of a large source, whose
    images come once an epoch, those that came last would be gone as well when their turn came.
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
        # Of threads that come here at once, one may take a little more than there is.
        if image.nbytes <= self._room and index not in self._kept:
            self._room -= image.nbytes
            self._kept[index] = name, image
        return name, image
