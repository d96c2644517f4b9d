"""From the bytes of an upload to a picture. Nothing but the bytes themselves is ever opened."""

from .. import files
from ..errors import InputError
from ..inference import images
from ..inference.pictures import Picture
from ..inference.sizes import Size
from .refusals import RefusedError, unusable

_NAME = "the image"  # in messages: what the upload was called is of no interest


def size_of(data: bytes, most_pixels: int) -> Size:
    """Height and width, upright, from the header: before a pixel is decoded."""
    try:
        with files.open_image(data, _NAME) as image:
            width, height = image.size
        if width * height > most_pixels:
            raise RefusedError(
                413,
                f"{_NAME} has {width} x {height} px; images of at most {most_pixels / 1e6:.1f} "
                "megapixels are taken here",
            )
        return files.header(data, _NAME).size
    except InputError as error:
        raise unusable(error) from error
    except MemoryError as error:
        raise _too_much() from error


def picture_of(data: bytes) -> Picture:
    try:
        return images.decode(data, _NAME)
    except InputError as error:
        raise unusable(error) from error
    except MemoryError as error:
        raise _too_much() from error


def _too_much() -> RefusedError:
    return RefusedError(413, f"{_NAME} does not fit the memory")
