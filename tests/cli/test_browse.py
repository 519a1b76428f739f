import numpy as np
from PIL import Image

from pvvae_plugin.cli import browse

CONFIG = """
train_dataloader = dict(
    dataset=dict(
        type='SyntheticVideoDataset',
        length=70,
        clip_len=9,
        size=16,
        pipeline=[dict(type='FutureDropSampler', temporal_ratio=2), dict(type='PackClip')],
    )
)
"""


def test_one_picture_a_clip(tmp_path, capsys):
    config = tmp_path / 'config.py'
    config.write_text(CONFIG)
    arguments = [str(config), '--num', '10', '--out-dir', str(tmp_path / 'out')]
    assert browse.main([*arguments, '--cfg-options', 'train_dataloader.dataset.clip_len=5']) == 0
    text = capsys.readouterr().out
    assert '70 clips, 7 classes' in text
    assert '5 x 16 x 16' in text
    pictures = sorted((tmp_path / 'out').glob('*.png'))
    assert len(pictures) == 10
    has_orange = [(np.array(Image.open(path)) == (230, 97, 1)).all(2).any() for path in pictures]
    dropped = [' 5 observed' not in line for line in text.splitlines()[1:]]
    assert has_orange == dropped
    assert len(set(dropped)) == 2
    assert browse.main([*arguments, '--split', 'val']) == 1
