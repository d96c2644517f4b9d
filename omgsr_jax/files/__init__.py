"""Files on the ground floor: what everybody needs who reads or writes them.

opening.py    image files: named formats only, checked on the header before a pixel is decoded
decoding.py   from an opened image to pixels (tiff_planes.py: channels of TIFFs that lie apart)
metadata.py   what a file says besides its pixels, and what of that a result says
writing.py    whole files and folders, or none
listing.py    the images of a folder, and what was passed over
planning.py   where outputs go: none over another, none over anything that is read
"""

from .decoding import Decoded, ImageWarning, decode
from .listing import SUFFIXES, Listing, images_in
from .metadata import Metadata, fitting, metadata_of, pillow_options
from .opening import (
    DamagedImageError,
    Header,
    explained,
    formats,
    header,
    open_image,
    read_bytes,
    require_at_most,
)
from .planning import Outputs, refuse_other_kinds, within
from .writing import atomic, new_directory, require_new, write_bytes, write_image, write_text

__all__ = [
    "SUFFIXES",
    "DamagedImageError",
    "Decoded",
    "Header",
    "ImageWarning",
    "Listing",
    "Metadata",
    "Outputs",
    "atomic",
    "decode",
    "explained",
    "fitting",
    "formats",
    "header",
    "images_in",
    "metadata_of",
    "new_directory",
    "open_image",
    "pillow_options",
    "read_bytes",
    "refuse_other_kinds",
    "require_at_most",
    "require_new",
    "within",
    "write_bytes",
    "write_image",
    "write_text",
]
