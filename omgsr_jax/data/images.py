"""Image files: finding, reading and writing them; local paths, or addresses that epath knows."""

from __future__ import annotations

import io
import os
import tempfile
from pathlib import Path

import numpy as np
from etils import epath
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import InputError

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


class DamagedImageError(InputError):
    """A file that should hold an image and cannot be decoded."""


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
    """h w 3 uint8 RGB, upright. Raises DamagedImageError, naming a file that cannot be decoded."""
    try:
        data = epath.Path(path).read_bytes()
    except OSError as error:
        raise DamagedImageError(f"{path} cannot be read: {error.strerror or error}") from error
    return decode_image(data, str(path))


def decode_image(data: bytes, name: str = "the image") -> np.ndarray:
    """The same from a file's bytes. `name` is for messages.

    EXIF orientation is applied, grey becomes RGB, 16 bits are scaled to 8, and whatever is
    transparent is laid over white.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            return _to_rgb(ImageOps.exif_transpose(image))
    except UnidentifiedImageError as error:
        raise DamagedImageError(f"{name} is not an image that can be read") from error
    except Exception as error:  # decoders raise OSError, SyntaxError, struct.error and more
        raise DamagedImageError(f"{name} is damaged: {error}") from error


def write_image(path: str | os.PathLike[str], image: np.ndarray) -> None:
    """Writes h w 3 uint8 in the format of the path's extension, complete or not at all."""
    buffer = io.BytesIO()
    extension = Path(path).suffix.lower()
    Image.fromarray(image).save(buffer, format=Image.registered_extensions()[extension])
    write_atomically(path, buffer.getvalue())


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes to a temporary name beside `path` and renames; makes the folder if need be."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def list_images(source: str | os.PathLike[str]) -> list[str]:
    """The images of a folder and its subfolders in sorted order, of a .txt list (a path a line,
    relative ones from the list's folder), or the one image itself."""
    root = epath.Path(source)
    if root.suffix.lower() == ".txt":
        return _listed(root)
    if root.suffix.lower() in EXTENSIONS and root.is_file():
        return [str(root)]
    if not root.exists():
        raise InputError(f"{source} does not exist; expected a folder of images or a .txt list")
    if not root.is_dir():
        raise InputError(f"{source} is neither a folder, a .txt list nor an image file")
    found = sorted(str(path) for path in _walk(root) if path.suffix.lower() in EXTENSIONS)
    if not found:
        raise InputError(f"{source} holds no images; the known kinds are {' '.join(EXTENSIONS)}")
    return found


def _listed(file: epath.Path) -> list[str]:
    if not file.is_file():
        raise InputError(f"the image list {file} does not exist")
    lines = [line.strip() for line in file.read_text().splitlines()]
    # An absolute path or an address with a scheme on the right replaces what stands on the left.
    paths = [str(file.parent / line) if "://" not in line else line for line in lines if line]
    if not paths:
        raise InputError(f"the image list {file} is empty; expected a path on each line")
    missing = [path for path in paths if "://" not in path and not os.path.isfile(path)]
    if missing:
        shown = "".join(f"\n  {path}" for path in missing[:5])
        more = f"\n  and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise InputError(
            f"{file} lists {len(missing)} of {len(paths)} files that do not exist:{shown}{more}"
        )
    return paths


def _walk(folder: epath.Path) -> list[epath.Path]:
    files = []
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir():
            files.extend(_walk(path))
        else:
            files.append(path)
    return files


def _to_rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion clips at 255
        levels = np.asarray(image, dtype=np.float32)
        grey = np.rint(np.clip(levels, 0, 65535) / 257).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.mode == "F":
        raise ValueError("floating-point pixels have no defined range; save it with 8 or 16 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return np.array(image.convert("RGB"))


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
