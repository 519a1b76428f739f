"""A generator with a sharded head trains, saves and resumes like one without FSDP."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from parallel_runs import generator_config, in_processes, largest_difference, save_vae, train

from pvvae_plugin.engine import GenerationLoop, build_runner
from pvvae_plugin.engine.hooks.generation_visualization_hook import GenerationVisualizationHook
from pvvae_plugin.functional.sharded import is_sharded, local_numel

STATE = ('state_dict', 'raw_weights', 'optimizer', 'param_schedulers')


def load(path: Path) -> dict:
    return torch.load(path, map_location='cpu', weights_only=True)


def shared(cfg: Config, resume_from: Path | None = None) -> Config:
    cfg = copy.deepcopy(cfg)
    cfg.strategy = {'type': 'GeneratorFSDPStrategy'}
    cfg.launcher = 'pytorch'
    cfg.train_dataloader.batch_size = 4  # 8 on two processes
    cfg.model.head.gradient_checkpointing = True  # gathers each block again; results do not change
    if resume_from is not None:
        cfg.resume, cfg.load_from = True, str(resume_from)
    return cfg


def runs(cfg: Config, work_dir: Path, whole: Path) -> dict:
    """Run to the end, then resume from its middle, from a run without FSDP, and from a bad file."""
    found, held = {}, {}
    draw = GenerationVisualizationHook._draw

    def look(self, runner, *args):
        head = runner.model.head
        held['shared'] = is_sharded(head)
        held['share'] = sum(map(local_numel, head.parameters())) / sum(p.numel() for p in head.parameters())
        with pytest.raises(ValueError) as caught:
            GenerationLoop(runner, runner.val_dataloader, []).run()
        held['no_test'] = str(caught.value)
        draw(self, runner, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GenerationVisualizationHook, '_draw', look)
        found['straight'] = train(shared(cfg), str(work_dir / 'straight'))
    for name, start in (('resumed', work_dir / 'straight' / 'iter_2.pth'), ('from_whole', whole / 'iter_2.pth')):
        found[name] = train(shared(cfg, start), str(work_dir / name))
    with pytest.raises(ValueError) as caught:
        train(shared(cfg, whole / 'crafted.pth'), str(work_dir / 'crafted'))
    return {**found, 'held': held, 'refusal': str(caught.value)}


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """Run in one process and :func:`runs` in two. Return the results and the checkpoint folders."""
    work_dir = tmp_path_factory.mktemp('fsdp')
    cfg = generator_config(4, 'AdamW', save_vae(work_dir / 'vae.pth'), accumulate=2)
    alone = train(copy.deepcopy(cfg), str(work_dir / 'alone'))
    crafted = load(work_dir / 'alone' / 'iter_2.pth')
    crafted['meta']['config'] = f'open({str(work_dir / "broken_in")!r}, "w")'
    torch.save(crafted, work_dir / 'alone' / 'crafted.pth')
    return alone, in_processes(2, runs, cfg, work_dir, work_dir / 'alone', out=work_dir / 'ranks'), work_dir, cfg


def test_two_processes_equal_one_without(finished):
    alone, ranks, _, _ = finished
    for rank in ranks:
        assert rank['held']['shared'] and 0.4 < rank['held']['share'] < 0.6
        assert 'does not support a sharded head' in rank['held']['no_test']
        for key in ('weights', 'averages', 'optimizers', 'losses', 'metrics'):
            assert largest_difference(rank['straight'][key], alone[key]) < 1e-9, key
            assert largest_difference(rank['straight'][key], ranks[0]['straight'][key]) == 0, key
    start = load(finished[2] / 'alone' / 'iter_2.pth')['raw_weights']
    moved = [name for name, tensor in start.items() if not torch.equal(tensor, alone['weights'][name])]
    assert 'head.final.out.weight' in moved and 'head.blocks.1.modulation.bias' in moved


def test_checkpoints_are_those_of_a_run_without(finished):
    _, _, work_dir, _ = finished
    with_fsdp, without = (load(work_dir / name / 'iter_4.pth') for name in ('straight', 'alone'))
    assert with_fsdp.keys() == without.keys() and with_fsdp['meta'].keys() == without['meta'].keys()
    for key in (*STATE, 'generator_config', 'backbone_source'):
        assert largest_difference(with_fsdp[key], without[key]) < 1e-9, key
    assert not [name for name in with_fsdp['state_dict'] if name.startswith('backbone.encoder')]
    assert largest_difference(with_fsdp['state_dict'], with_fsdp['raw_weights'] | with_fsdp['state_dict']) == 0
    assert (work_dir / 'straight' / 'vis' / 'latest.png').read_bytes() == (
        work_dir / 'alone' / 'vis' / 'latest.png'
    ).read_bytes()


def test_a_resumed_run_ends_bit_equal(finished):
    _, ranks, work_dir, _ = finished
    straight, resumed = (load(work_dir / name / 'iter_4.pth') for name in ('straight', 'resumed'))
    for key in STATE:
        assert largest_difference(straight[key], resumed[key]) == 0, key
    assert largest_difference(ranks[0]['straight']['losses'][2:], ranks[0]['resumed']['losses']) == 0


def test_runs_with_and_without_resume_from_one_another(finished, tmp_path):
    alone, ranks, work_dir, cfg = finished
    back = copy.deepcopy(cfg)
    back.resume, back.load_from = True, str(work_dir / 'straight' / 'iter_2.pth')
    for found in (ranks[0]['from_whole'], train(back, str(tmp_path / 'back'))):
        for key in ('weights', 'averages', 'optimizers', 'metrics'):
            assert largest_difference(found[key], alone[key]) < 1e-9, key


def test_a_checkpoint_with_a_program_in_it_is_refused(finished):
    """MMEngine would execute ``meta.config`` as Python on resume."""
    _, ranks, work_dir, _ = finished
    assert all("refused: it contains meta['config']" in rank['refusal'] for rank in ranks)
    assert not (work_dir / 'broken_in').exists()


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'model': {'type': 'VideoAutoencoder', 'backbone': {}, 'loss': {}}}, 'head of generators.*VideoAutoencoder'),
        ({'launcher': 'none'}, 'dist_train.sh.*strategy=None'),
        ({'strategy': {'type': 'FSDPStrategy'}}, "GeneratorFSDPStrategy', got 'FSDPStrategy'"),
        ({'strategy': {'type': 'NoSuchStrategy'}}, "GeneratorFSDPStrategy', got 'NoSuchStrategy'"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_built(change, message, tmp_path):
    cfg = shared(generator_config(2, 'AdamW', str(tmp_path / 'no_such_vae.pth')))
    for key, value in change.items():
        cfg[key] = value
    cfg.work_dir = str(tmp_path / 'run')
    with pytest.raises(ValueError, match=message):
        build_runner(cfg)
    assert not list(tmp_path.iterdir())
