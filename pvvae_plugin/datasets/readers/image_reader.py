"""An image as a video of one frame."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from PIL import Image

from ..errors import ClipError, first_line
from .base import VideoReader
from .packet_index import check_frame_size

_NO_SIZE = (0xC4, 0xC8, 0xCC)  # of the markers from 0xC0 to 0xCF of a JPEG, those that start no frame


class ImageReader(VideoReader):
    """An image as a video of one frame.

    Args:
        path: Image file.

    Raises:
        ClipError: If it cannot be decoded.

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
        # Not cv2.imread, which does not find names outside the code page on Windows.
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
        """The image, once for each index: uint8 RGB ``(T, H, W, 3)``.

        Raises:
            ClipError: If an index is not 0.
        """
        if any(index != 0 for index in indices):
            raise ClipError(self.path, f'an image has only frame 0, asked for {list(indices)}')
        return np.stack([self._frame] * len(indices))

    def __iter__(self) -> Iterator[np.ndarray]:
        yield self._frame


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of a JPEG, in a tenth of the time that Pillow takes; None if it is none, or may be damaged."""
    # Behind the start of its last scan must come the end of the image, which OpenCV 4 does without.
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
    """Refuse images that are too large, and what is wrong with them as far as OpenCV would not tell.

    Raises:
        ClipError: Then. What Pillow does not know, OpenCV may.
    """
    try:
        with warnings.catch_warnings():  # about sizes, which are checked here
            warnings.simplefilter('ignore')
            image = Image.open(path)
    except Image.DecompressionBombError as error:
        raise ClipError(path, f'too large: {first_line(error)}') from error
    except Exception:  # Pillow raises of all kinds
        return
    with image:
        check_frame_size(path, *image.size)
        if image.format in ('TIFF', 'JPEG'):  # OpenCV may return rubbish for damaged ones
            try:
                image.load()
            except Exception as error:
                raise ClipError(path, f'not a readable image: {first_line(error)}') from error
