"""Files on the ground floor: what everybody needs who reads or writes them.

opening.py    image files: named formats only, checked on the header before a pixel is decoded
exif_bombs.py found before Pillow reads them
decoding.py   from an opened image to pixels, with png_file.py and tiff_planes.py; not imported
              here, as it takes NumPy and OpenCV, and the command line checks names without them
metadata.py   what a file says besides its pixels, and what of that a result says
writing.py    whole files and folders, or none
listing.py    the images of a folder, and what was passed over
planning.py   where outputs go: none over another, none over anything that is read
"""

from .listing import LIST, LeftOutWarning, Listing, images_in, images_listed, suffixes
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
from .planning import Outputs, refuse_other_kinds, require_folder_name, within
from .writing import (
    atomic,
    new_directory,
    remove_leftovers,
    require_new,
    write_bytes,
    write_image,
    write_text,
)

__all__ = [
    "LIST",
    "DamagedImageError",
    "Header",
    "LeftOutWarning",
    "Listing",
    "Metadata",
    "Outputs",
    "atomic",
    "explained",
    "fitting",
    "formats",
    "header",
    "images_in",
    "images_listed",
    "metadata_of",
    "new_directory",
    "open_image",
    "pillow_options",
    "read_bytes",
    "refuse_other_kinds",
    "remove_leftovers",
    "require_at_most",
    "require_folder_name",
    "require_new",
    "suffixes",
    "within",
    "write_bytes",
    "write_image",
    "write_text",
]
