"""Reader of images as single-frame videos."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from PIL import Image

from ..errors import ClipError, first_line
from .base import VideoReader
from .packet_index import check_frame_size

_NO_SIZE = (0xC4, 0xC8, 0xCC)  # JPEG markers between 0xC0 and 0xCF that do not start a frame


class ImageReader(VideoReader):
    """Reader that presents an image as a single-frame video.

    Args:
        path: Image file.

    Raises:
        ClipError: If the image cannot be decoded.

    Example:
        >>> from PIL import Image
        >>> from pvvae_plugin.datasets import ImageReader
        >>> Image.new('RGB', (48, 32), (255, 0, 0)).save('red.png')
        >>> reader = ImageReader('red.png')
        >>> len(reader), reader.read([0])[0, 0, 0].tolist()
        (1, [255, 0, 0])
    """

    fps = 0.0
    times = np.zeros(1)

    def __init__(self, path: str) -> None:
        self.path = path
        # Not cv2.imread: on Windows it cannot open file names outside of the code page.
        try:
            data = np.fromfile(path, dtype=np.uint8).tobytes()
            size = _jpeg_size(data)
            if size is None:
                _inspect(path)
            else:
                check_frame_size(path, *size)
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        except (cv2.error, OSError) as error:
            raise ClipError(path, f'not a readable image: {first_line(error)}') from error
        if image is None:
            raise ClipError(path, 'not an image that OpenCV can decode')
        self._frame = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)

    def __len__(self) -> int:
        return 1

    def read(self, indices: Sequence[int]) -> np.ndarray:
        """Return the image repeated for each index: uint8 RGB ``(T, H, W, 3)``.

        Raises:
            ClipError: If an index is not 0.
        """
        if any(index != 0 for index in indices):
            raise ClipError(self.path, f'an image has only frame 0, got indices {list(indices)}')
        return np.stack([self._frame] * len(indices))

    def __iter__(self) -> Iterator[np.ndarray]:
        yield self._frame


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Read width and height of a JPEG, ten times faster than Pillow. None for other or damaged files."""
    # An end-of-image marker must follow the start of the last scan. OpenCV 4 does not require it.
    if not data.startswith(b'\xff\xd8\xff') or data.rfind(b'\xff\xd9') < data.rfind(b'\xff\xda'):
        return None
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in _NO_SIZE:
            return int.from_bytes(data[at + 7 : at + 9], 'big'), int.from_bytes(data[at + 5 : at + 7], 'big')
        at += 2 + int.from_bytes(data[at + 2 : at + 4], 'big')
    return None


def _inspect(path: str) -> None:
    """Check an image for excessive size, and for damage that OpenCV does not report.

    Formats that Pillow does not know pass, because OpenCV may still read them.

    Raises:
        ClipError: If the image is too large or damaged.
    """
    try:
        with warnings.catch_warnings():  # Pillow warns about sizes, which are checked here
            warnings.simplefilter('ignore')
            image = Image.open(path)
    except Image.DecompressionBombError as error:
        raise ClipError(path, f'too large: {first_line(error)}') from error
    except Exception:  # Pillow raises many types of errors
        return
    with image:
        check_frame_size(path, *image.size)
        if image.format in ('PNG', 'WEBP') and (frames := getattr(image, 'n_frames', 1)) > 1:
            raise ClipError(
                path,
                f'an animation of {frames} frames, of which an image reader sees one; convert it to .gif, or rename an '
                'animated .png to .apng',
            )
        if image.format in ('TIFF', 'JPEG'):  # OpenCV may return garbage for damaged files
            try:
                image.load()
            except Exception as error:
                raise ClipError(path, f'not a readable image: {first_line(error)}') from error
