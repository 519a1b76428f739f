import numpy as np
import pytest

from pvvae_plugin.datasets import ClipDataset, ClipError, ClipIndex


class Numbered(ClipDataset):
    """Clips whose pixels are their index; those in ``bad`` cannot be read."""

    def __init__(self, length=10, bad=(), **kwargs):
        self.length, self.bad = length, set(bad)
        super().__init__(clip_len=2, **kwargs)

    def load_data_list(self):
        return [{'path': f'clip{i}', 'label': i} for i in range(self.length)]

    def load_clip(self, info, rng):
        if info['label'] in self.bad:
            raise ClipError(info['path'], 'broken on purpose')
        return np.full((2, 4, 4, 3), info['label'], np.uint8)


def test_results_hold_what_transforms_need():
    results = Numbered()[ClipIndex(3, draw_key=5, size=128)]
    assert results['label'] == 3
    assert results['path'] == 'clip3'
    assert results['draw_key'] == 5
    assert results['size'] == 128
    assert results['test_mode'] is False
    assert 'substituted_path' not in results
    assert results['rng'].random() == Numbered()[ClipIndex(7, draw_key=5)]['rng'].random()


def test_test_mode_repeats_itself_and_training_does_not():
    test = Numbered(test_mode=True)
    assert test[3]['draw_key'] == test[3]['draw_key'] == test[-7]['draw_key'] != test[4]['draw_key']
    assert test[3]['draw_key'] != Numbered(test_mode=True, seed=1)[3]['draw_key']
    train = Numbered()
    assert len({train[3]['draw_key'] for _ in range(20)}) == 20


def test_a_clip_that_fails_is_named_once_and_replaced_alike(warnings_of):
    dataset = Numbered(bad=[3])
    first = dataset[ClipIndex(3, draw_key=1)]
    again = dataset[ClipIndex(3, draw_key=1)]
    assert first['substituted_path'] == 'clip3'
    assert first['label'] == again['label'] != 3
    assert (first['frames'] == first['label']).all()
    assert dataset.skipped == {'clip3': 'broken on purpose'}
    assert len(warnings_of) == 1
    assert 'clip3' in warnings_of[0]
    others = {dataset[ClipIndex(3, draw_key=key)]['label'] for key in range(200)}
    assert others == set(range(10)) - {3}


def test_a_data_set_that_opens_files_need_not_translate_their_errors(warnings_of):
    class Opening(Numbered):
        def load_clip(self, info, rng):
            if info['label'] == 3:
                open('/no/such/file.npy').close()
            return super().load_clip(info, rng)

    dataset = Opening()
    assert dataset[3]['substituted_path'] == 'clip3'
    assert dataset.skipped == {'clip3': 'FileNotFoundError: No such file or directory'}


def test_substitution_in_test_mode_is_marked(warnings_of):
    sample = Numbered(bad=[0], test_mode=True)[0]
    assert sample['substituted_path'] == 'clip0'


def test_substitutes_are_searched_among_clips_not_tried_yet(warnings_of):
    # 9 of 10 are broken: drawing with repetition would often give up before it found the one.
    dataset = Numbered(bad=range(9))
    assert all(dataset[ClipIndex(0, draw_key=key)]['label'] == 9 for key in range(50))


@pytest.mark.parametrize(('length', 'tried'), [(50, 4), (3, 3)])
def test_too_many_failures_stop_with_all_names(warnings_of, length, tried):
    dataset = Numbered(length=length, bad=range(length), max_substitutes=3)
    with pytest.raises(RuntimeError, match='none of') as error:
        dataset[0]
    listed = [line for line in str(error.value).splitlines() if 'broken on purpose' in line]
    assert len(set(listed)) == len(listed) == tried


def test_errors_at_the_start():
    with pytest.raises(ValueError, match='no clips'):
        Numbered(length=0)
    with pytest.raises(KeyError, match='NoSuchTransform'):
        Numbered(pipeline=[{'type': 'NoSuchTransform'}])
    with pytest.raises(IndexError, match='10'):
        Numbered()[10]
    assert len(list(Numbered())) == 10


def test_a_subclass_that_returns_other_frames_is_told():
    class Wrong(Numbered):
        def load_clip(self, info, rng):
            return np.zeros((3, 4, 4, 3), np.uint8)

    with pytest.raises(ValueError, match=r'\(2, H, W, 3\).*\(3, 4, 4, 3\)'):
        Wrong()[0]
