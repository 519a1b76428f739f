from __future__ import annotations

import copy
import shutil

import pytest
import torch

from pvvae_plugin import safe_globals
from pvvae_plugin.files import file_sha256
from pvvae_plugin.models.checkpoints import (
    check_backbone_source,
    check_checkpoint,
    check_generator_config,
    generator_config,
    last_checkpoint,
    load_backbone,
    rename_optimizers,
    resolve_checkpoint,
    unwrap_names,
    upgrade_checkpoint,
)
from pvvae_plugin.registry import MODELS
from pvvae_plugin.safe_globals import load_safely

RESUMABLE = {
    'state_dict': {},
    'meta': {},
    'message_hub': {},
    'optimizer': {'vae': {'state': {}}},
    'param_schedulers': {},
}


def test_a_work_directory_stands_for_its_last_checkpoint(tmp_path):
    run = tmp_path / 'run'
    with pytest.raises(FileNotFoundError, match='train it first'):
        resolve_checkpoint(str(run))
    run.mkdir()
    with pytest.raises(FileNotFoundError, match='no checkpoint'):
        resolve_checkpoint(str(run))
    for n in (9, 10):
        torch.save(RESUMABLE, run / f'iter_{n}.pth')
    (run / 'last_checkpoint').write_text(str(run / 'iter_9.pth'))
    assert resolve_checkpoint(str(run)) == str(run / 'iter_9.pth')
    assert resolve_checkpoint(str(run / 'iter_10.pth')) == str(run / 'iter_10.pth')


def test_a_copied_directory_stands_for_its_own_files(tmp_path):
    run, copy = tmp_path / 'run', tmp_path / 'copy'
    run.mkdir()
    torch.save(RESUMABLE, run / 'iter_9.pth')
    (run / 'last_checkpoint').write_text(str(run / 'iter_9.pth'))
    shutil.copytree(run, copy)
    assert last_checkpoint(str(copy)) == str(copy / 'iter_9.pth')


@pytest.mark.parametrize('note', [None, '', 'iter_12.pth'])
def test_without_a_valid_note_the_largest_number_is_last(tmp_path, note):
    for n in (9, 10):
        torch.save(RESUMABLE, tmp_path / f'iter_{n}.pth')
    if note is not None:
        (tmp_path / 'last_checkpoint').write_text(note)
    assert last_checkpoint(str(tmp_path)) == str(tmp_path / 'iter_10.pth')


@pytest.mark.parametrize('note', [None, 'iter_11.pth', 'iter_10.pth'])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path, note):
    """torch.load would load a weight with a flipped bit."""
    for n in (9, 10, 11):
        torch.save({'state_dict': {'weight': torch.arange(1000.0)}}, tmp_path / f'iter_{n}.pth')
    if note is not None:
        (tmp_path / 'last_checkpoint').write_text(note)
    for n in (10, 11):
        content = bytearray((tmp_path / f'iter_{n}.pth').read_bytes())
        content[content.index(torch.arange(500.0, 600.0).numpy().tobytes())] ^= 1
        (tmp_path / f'iter_{n}.pth').write_bytes(content)
        assert torch.load(tmp_path / f'iter_{n}.pth', weights_only=True)['state_dict']['weight'][500] != 500
    assert last_checkpoint(str(tmp_path)) == str(tmp_path / 'iter_9.pth')
    (tmp_path / 'iter_9.pth').write_bytes(b'')
    with pytest.raises(ValueError, match='every checkpoint in .* is damaged: .*checksum'):
        last_checkpoint(str(tmp_path))


def test_a_url_is_refused():
    """MMEngine would unpickle downloaded content."""
    with pytest.raises(ValueError, match='download the file first'):
        resolve_checkpoint('http://127.0.0.1/model.pth')


def test_files_that_are_no_checkpoints_are_refused_by_name(tmp_path):
    path = tmp_path / 'some.pth'
    torch.save(RESUMABLE, path)
    check_checkpoint(str(path), ['vae'])
    with pytest.raises(ValueError, match="some.pth was written while training .'vae'."):
        check_checkpoint(str(path), ['discriminator', 'vae'])
    whole = path.read_bytes()
    for damaged in (b'', b'not a checkpoint', whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match='some.pth cannot be loaded'):
            check_checkpoint(str(path))
    torch.save(torch.zeros(3), path)
    with pytest.raises(ValueError, match="some.pth has no 'state_dict'"):
        check_checkpoint(str(path))
    torch.save({'state_dict': {}}, path)
    check_checkpoint(str(path))
    with pytest.raises(ValueError, match='cannot be resumed: it lacks meta.*Use load_from'):
        check_checkpoint(str(path), ['vae'])


def test_a_vae_is_loaded_from_a_run(tiny_vae_config, tmp_path):
    vae, other = MODELS.build(tiny_vae_config), MODELS.build(tiny_vae_config)
    torch.save({'state_dict': {f'backbone.{n}': p for n, p in vae.state_dict().items()}}, tmp_path / 'iter_1.pth')
    load_backbone(other, str(tmp_path))
    assert torch.equal(vae.last_layer, other.last_layer)
    with pytest.raises(ValueError, match='does not fit'):
        load_backbone(MODELS.build(dict(tiny_vae_config, latent_channels=8)), str(tmp_path))


WRAPPED = ['module.{}', '_orig_mod.{}', 'module._orig_mod.{}', '_orig_mod.module.{}']


@pytest.mark.parametrize('wrapped', WRAPPED)
def test_names_of_wrapped_networks_are_unwrapped(wrapped, tiny_vae_config, tmp_path):
    """DistributedDataParallel and torch.compile put their own names before those of the weights."""
    vae, other = MODELS.build(tiny_vae_config), MODELS.build(tiny_vae_config)
    names = vae.state_dict()
    for pattern in (wrapped.format('backbone.{}'), 'backbone.' + wrapped):
        torch.save({'state_dict': {pattern.format(n): p for n, p in names.items()}}, tmp_path / 'iter_1.pth')
        with torch.no_grad():
            other.last_layer.zero_()
        load_backbone(other, str(tmp_path))
        assert torch.equal(vae.last_layer, other.last_layer)
    inner = {n.replace('decoder.', 'decoder._orig_mod.'): p for n, p in names.items()}
    torch.save({'state_dict': {f'backbone.{n}': p for n, p in inner.items()}}, tmp_path / 'iter_1.pth')
    load_backbone(other, str(tmp_path))


def test_names_of_a_networks_own_are_kept():
    expected = {'backbone.module.weight': 1, 'head.weight': 2}
    assert unwrap_names(expected, expected) == expected
    assert unwrap_names({'module.backbone.module.weight': 1, 'module.other': 2}, expected) == {
        'backbone.module.weight': 1,
        'other': 2,
    }
    assert unwrap_names({'backbone.weight': 1}, ['_orig_mod.backbone.weight']) == {'_orig_mod.backbone.weight': 1}


def test_another_network_on_weights_of_the_same_shapes_is_refused():
    def model(heads, **options):
        backbone = {'type': 'PredictiveVAE', 'strides': ((2, 2), (2, 1))}
        head = {'type': 'pvvae_plugin.LatentDiT', 'heads': heads, 'gradient_checkpointing': bool(options)}
        return generator_config({'backbone': backbone, 'head': head, **options})

    check_generator_config(model(4), model(4, condition_prob=0.5))  # training continued with condition_prob
    check_generator_config(None, model(4))  # a checkpoint without this entry
    with pytest.raises(ValueError, match=r'model.head.num_heads=2 \(trained with 4\)'):
        check_generator_config(model(4), model(2))


def test_checkpoints_of_the_version_before_get_the_names_of_today():
    """The VAE's optimizer was called ``generator``."""
    old = {
        'optimizer': {'generator': 1, 'discriminator': 2},
        'param_schedulers': {'generator': [3], 'discriminator': [4]},
        'message_hub': {'runtime_info': {'skipped_steps_generator': 5, 'iter': 6}, 'resumed_keys': {}},
        'run_settings': {'seed': 0, 'kept': {'optim_wrapper.generator.optimizer': 7}},
    }
    of_others = copy.deepcopy(old)
    upgrade_checkpoint(of_others, ['generator', 'discriminator'])
    assert of_others['optimizer'] == old['optimizer']
    upgrade_checkpoint(old, ['vae', 'discriminator'])
    assert old == {
        'optimizer': {'vae': 1, 'discriminator': 2},
        'param_schedulers': {'vae': [3], 'discriminator': [4]},
        'message_hub': {'runtime_info': {'skipped_steps_vae': 5, 'iter': 6}, 'resumed_keys': {}},
        'run_settings': {'seed': 0, 'kept': {'optim_wrapper.vae.optimizer': 7}},
    }


def test_an_override_by_the_old_name_goes_into_the_new_entry():
    lr = {'optimizer': {'lr': 1.0}}
    given = {'vae': {'dtype': 'bfloat16', 'optimizer': {'type': 'AdamW', 'lr': 2.0}}, 'generator': lr}
    merged = rename_optimizers(given, ['vae'])
    assert merged == {'vae': {'dtype': 'bfloat16', 'optimizer': {'type': 'AdamW', 'lr': 1.0}}}
    assert rename_optimizers({'generator': lr}, ['vae']) == {'vae': lr}
    assert rename_optimizers({'generator': lr}, ['generator']) == {'generator': lr}


def test_the_vae_of_a_generator_is_named_if_it_is_still_there(tmp_path):
    for number in (104, 2400):
        torch.save({**RESUMABLE, 'meta': {'iter': number}}, tmp_path / f'iter_{number}.pth')
    old, new = (tmp_path / f'iter_{number}.pth' for number in (104, 2400))
    here = {'path': str(new), 'sha256': file_sha256(new)}
    trained = {'path': str(old), 'sha256': file_sha256(old)}
    check_backbone_source(trained, {**trained, 'path': str(tmp_path / 'copy.pth')})
    for path in (old, tmp_path):  # earlier versions recorded the folder
        with pytest.raises(ValueError, match=rf'set model\.backbone_checkpoint={old}$'):
            check_backbone_source({**trained, 'path': str(path)}, here)
    old.write_bytes(new.read_bytes())  # another VAE under the same name
    for path in (old, tmp_path):
        with pytest.raises(ValueError, match='is no longer there: .* or train the generator again'):
            check_backbone_source({**trained, 'path': str(path)}, here)


@pytest.mark.parametrize('error', [PermissionError(13, 'Permission denied'), OSError(116, 'Stale file handle')])
def test_a_file_that_cannot_be_read_now_is_not_called_damaged(tmp_path, monkeypatch, error):
    """Else a run would resume from an older checkpoint after a fault of the network."""
    for number in (1, 2):
        torch.save({'state_dict': {}}, tmp_path / f'iter_{number}.pth')

    def fail(path, mode):
        raise error

    monkeypatch.setattr(safe_globals, 'open', fail, raising=False)
    with pytest.raises(OSError, match=error.strerror):
        last_checkpoint(str(tmp_path))
    monkeypatch.undo()
    assert last_checkpoint(str(tmp_path)) == str(tmp_path / 'iter_2.pth')
    with pytest.raises(FileNotFoundError):
        load_safely(tmp_path / 'none.pth')
