import cv2
import numpy as np
import pytest


@pytest.fixture
def write_video():
    """Writes a small video whose frames differ strongly; returns its path."""

    def write(path, num_frames=20, fourcc='mp4v', size=(64, 48)):
        path.parent.mkdir(parents=True, exist_ok=True)
        width, height = size
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*fourcc), 25, size)
        for t in range(num_frames):
            frame = np.zeros((height, width, 3), np.uint8)
            frame[:, : 2 + 3 * t % width] = (20, 10 * t % 250, 230)  # BGR: mostly red
            writer.write(frame)
        writer.release()
        return str(path)

    return write


@pytest.fixture
def warnings_of(monkeypatch):
    """Messages that data sets log, collected."""
    messages = []
    monkeypatch.setattr('pvvae_plugin.datasets.clip_dataset.print_log', lambda text, **_: messages.append(text))
    return messages
