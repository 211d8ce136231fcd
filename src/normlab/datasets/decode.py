"""From the bytes of an image file to pixels, and the process that does so for a share of a data set.

Started by `folder.py` with the arguments JOB START STOP; it writes its rows of the shared array
and prints, as JSON, the files it could not read.
"""

import io
import json
import struct
import sys
import warnings
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from normlab.datasets.archive import open_files

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")  # others may start programs, as EPS does Ghostscript
FRAMES = {0xC0, 0xC1, 0xC2}  # of JPEG: baseline, extended, progressive
TABLES = {0xC4, 0xDB, 0xDD, 0xE0}  # Huffman, quantization, restart interval; JFIF's header
MAX_PIXELS = 4096 * 4096  # of an image's header, checked before a pixel is decoded


def decode_image(content: bytes, image_size: int | None) -> np.ndarray:
    """RGB pixels, uint8 [S, S, 3]; ValueError says why there are none.

    The EXIF orientation is applied; other modes than RGB (grey, palette, CMYK, transparency, 16 bits) are converted;
    of an animation the first frame counts. With `image_size` the image is squashed to a square, bilinear with
    antialiasing; without, it must be one.
    """
    from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

    if not content:
        raise ValueError("the file is empty")
    if (size := _size_of_plain_jpeg(content)) is not None and size[0] == size[1] == (image_size or size[0]):
        with suppress(ValueError):  # whose reason Pillow knows to say below
            return np.asarray(Image.frombytes("RGB", size, content, "jpeg", "RGB", ""))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image: Image.Image = Image.open(io.BytesIO(content), formats=FORMATS)
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width}×{image.height} pixels are more than {MAX_PIXELS:,}")
            if image_size is None and image.width != image.height:
                raise ValueError(f"{image.width}×{image.height} is not square; write image_size: 32 or --image-size 32")
            if image_size is not None and isinstance(image, ImageFile.ImageFile):
                image.draft("RGB", (image_size, image_size))  # decodes no more than is needed
            if image.getexif().get(0x0112, 1) != 1:
                image = ImageOps.exif_transpose(image)
            rgb = _to_rgb(image)
            if image_size is not None and rgb.size != (image_size, image_size):
                rgb = rgb.resize((image_size, image_size), Image.Resampling.BILINEAR)
            return np.asarray(rgb)
    except UnidentifiedImageError:
        raise ValueError("it is not an image") from None
    except ValueError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ValueError("it unpacks to more pixels than an image should") from None
    except Exception as error:  # decoders raise SyntaxError, struct.error, IndexError, … on broken files
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from None


def _size_of_plain_jpeg(content: bytes) -> tuple[int, int] | None:
    """Width and height of a JPEG file in colour that holds nothing but what its pixels are made of: no EXIF, no other
    colours. Half of Pillow's time for a tiny image is for reading what may stand there (ITU-T T.81, annex B)."""
    at = 2
    while content[:2] == b"\xff\xd8" and at + 10 <= len(content) and content[at] == 0xFF:
        marker, length = content[at + 1], int.from_bytes(content[at + 2 : at + 4])
        if marker in FRAMES:
            bits, height, width, components = struct.unpack_from(">BHHB", content, at + 4)
            fits = bits == 8 and components == 3 and 0 < width * height <= MAX_PIXELS
            return (width, height) if fits else None
        if marker not in TABLES:
            return None
        at += 2 + length
    return None


def _to_rgb(image: "Image.Image") -> "Image.Image":
    """Any mode to RGB; 16-bit grey is scaled, not cut off."""
    from PIL import Image

    if image.mode == "RGB":
        image.load()
        return image
    if image.mode == "F":
        raise ValueError("its pixels are fractions, of which nobody says what is white; save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        values = np.asarray(image, np.float64)
        scale = 255 / 65535 if image.mode != "I" or values.max(initial=0) > 255 else 1.0
        return Image.fromarray(np.clip(values * scale, 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in {"RGBA", "LA", "PA"} or "transparency" in image.info:
        with_alpha = image.convert("RGBA")  # transparent pixels show white, not whatever colour lies under them
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), with_alpha).convert("RGB")
    return image.convert("RGB")


def decode_share(job: dict[str, object], start: int, stop: int) -> list[tuple[int, str]]:
    """Decodes rows `start` to `stop` of a job into its array; returns (row, reason) of those that cannot be read."""
    paths, size = job["paths"], job["image_size"]
    assert isinstance(paths, list)
    assert isinstance(size, int)
    images = np.load(str(job["array"]), mmap_mode="r+", allow_pickle=False)
    bad = []
    with open_files(Path(str(job["source"]))) as files:
        for row in range(start, stop):
            try:
                pixels = decode_image(files.read(paths[row]), size if job["resize"] else None)
                if pixels.shape != images.shape[1:]:
                    raise ValueError(
                        f"{pixels.shape[1]}×{pixels.shape[0]}, but others are {size}×{size}; write image_size: {size} "
                        f"or --image-size {size}"
                    )
                images[row] = pixels
            except (ValueError, OSError) as error:
                bad.append((row, str(error)))
    images.flush()
    return bad


def main() -> None:
    job, start, stop = sys.argv[1:]
    print(json.dumps(decode_share(json.loads(Path(job).read_text()), int(start), int(stop))))
