"""Files on the ground floor: what everybody needs who reads or writes them.

opening.py    image files: named formats only, checked on the header before a pixel is decoded
writing.py    whole files and folders, or none
listing.py    the images of a folder, and what was passed over
planning.py   where outputs go: none over another, none over anything that is read
"""

from .listing import SUFFIXES, Listing, images_in
from .opening import (
    DamagedImageError,
    Header,
    bits_of,
    content,
    formats,
    header,
    open_image,
    read_bytes,
    upright,
)
from .planning import Outputs, refuse_other_kinds, within
from .writing import atomic, new_directory, require_new, write_bytes, write_image, write_text

__all__ = [
    "SUFFIXES",
    "DamagedImageError",
    "Header",
    "Listing",
    "Outputs",
    "atomic",
    "bits_of",
    "content",
    "formats",
    "header",
    "images_in",
    "new_directory",
    "open_image",
    "read_bytes",
    "refuse_other_kinds",
    "require_new",
    "upright",
    "within",
    "write_bytes",
    "write_image",
    "write_text",
]
