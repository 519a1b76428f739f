"""Named and custom protocols."""

from __future__ import annotations

import dataclasses
import json

import pytest

from pvvae_plugin.evaluation import PROTOCOLS, resolve_protocol

FIELDS = ('num_frames', 'num_samples', 'resize', 'value_range', 'eight_bit', 'batch_norm_eps', 'ddof', 'real_split')


@pytest.mark.parametrize(
    ('name', 'values'),
    [
        ('paper', (17, 2048, 'stretch', (-1.0, 1.0), 'round', 1e-3, 0, 'train')),
        ('stylegan-v', (16, 2048, 'stretch', (-1.0, 1.0), 'round', 1e-3, 0, 'train')),
        ('videogpt', (16, 256, 'short-side-crop', (-0.5, 0.5), 'truncate', 1e-5, 1, 'test')),
    ],
)
def test_named_protocols(name, values):
    """Preprocessing of the published code."""
    protocol = resolve_protocol(name)
    assert tuple(getattr(protocol, field) for field in FIELDS) == values
    assert (protocol.frame_interval, protocol.real_clip, protocol.inception_splits) == (1, 'random', 10)
    assert json.loads(json.dumps(protocol.record()))['name'] == name


def test_what_the_paper_leaves_open_is_marked_as_ours():
    settled = {'name', 'source', 'ours', 'num_frames', 'num_samples'}
    assert set(PROTOCOLS['paper'].ours) == {f.name for f in dataclasses.fields(PROTOCOLS['paper'])} - settled


def test_one_of_ones_own_says_what_it_changes():
    protocol = resolve_protocol({'base': 'videogpt', 'ddof': 0, 'value_range': [-1, 1]})
    assert protocol.name == 'custom' and protocol.source.startswith('videogpt with ddof=0')
    assert (protocol.ddof, protocol.value_range, protocol.num_samples) == (0, (-1, 1), 256)
    assert {'ddof', 'value_range'} <= set(protocol.ours)
    assert resolve_protocol(protocol) is protocol
    assert PROTOCOLS['videogpt'].ddof == 1


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'ddof': 2}, r'protocol.ddof must be one of \(0, 1\), got 2'),
        ({'resize': 'crop'}, "protocol.resize must be one of .* got 'crop'"),
        ({'num_frames': 0}, 'protocol.num_frames must be a positive integer, got 0'),
        ({'value_range': (1, -1)}, 'two increasing numbers'),
        ({'value_range': 1}, 'two increasing numbers'),
        ({'ddof': True}, 'got True'),
        ({'num_frames': True}, 'got True'),
        ({'real_split': 'moon'}, "got 'moon'"),
        ({'base': [1]}, 'protocol must be a name or dict'),
        ({'batch_norm_eps': 'abc'}, "got 'abc'"),
        ({'batch_norm_eps': 0}, 'must be a positive number'),
        ({'frames': 16}, 'a protocol has no field frames'),
        ({'name': 'mine'}, 'a protocol has no field name'),
        ({'base': 'fvd'}, "no protocol 'fvd'; choose from paper, stylegan-v, videogpt"),
    ],
)
def test_what_is_not_valid_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        resolve_protocol(change)
