"""What is found in a file or a folder is not trusted: it names no code, no address and nothing outside its folder."""

from __future__ import annotations

import ast
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmengine.runner.checkpoint import CheckpointLoader
from tiny_runs import ROOT, make_runs, script

from pvvae_plugin.apis import VideoAutoencoderInferencer, read_video
from pvvae_plugin.apis.web_page import WebPage
from pvvae_plugin.cli import web
from pvvae_plugin.datasets import ClipError, LatentDataset, latent_shards
from pvvae_plugin.evaluation.folders import videos_config
from pvvae_plugin.models.checkpoints import resolve_checkpoint
from pvvae_plugin.registry import DATASETS

WORK = '--work-dir'


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    return make_runs(tmp_path_factory.mktemp('run'))


def config_that_runs(marker: Path) -> str:
    return f'made = __import__("os").makedirs({str(marker)!r}, exist_ok=True)\n'


def with_text(run, path: Path, marker: Path) -> Path:
    """A checkpoint that is whole, with a config as older versions of MMEngine kept it."""
    state = torch.load(run.checkpoint, weights_only=True)
    meta = {'iter': 1, 'epoch': 0, 'config': config_that_runs(marker)}
    optimizer = {'vae': {}}
    torch.save({**state, 'meta': meta, 'message_hub': {}, 'optimizer': optimizer, 'param_schedulers': {}}, path)
    return path


def test_text_that_mmengine_would_run_on_resuming_is_refused(run, tmp_path):
    marker = tmp_path / 'marker'
    file = with_text(run, tmp_path / 'iter_1.pth', marker)
    for option in (['--resume', file], ['--resume'], ['--cfg-options', f'load_from={file}']):
        with pytest.raises(ValueError, match=r"iter_1\.pth is refused.*meta\['config'\]"):
            script('train.py', run.vae, WORK, tmp_path, *option)
    assert not marker.exists()
    Config.fromstring(torch.load(file, weights_only=True)['meta']['config'], '.py')  # what MMEngine does
    assert marker.exists()


def test_it_is_refused_whatever_script_resumes(run, tmp_path):
    """Of MMEngine's own Runner, the check at the start comes before it."""
    cfg = Config.fromfile(run.vae)
    cfg.work_dir, cfg.experiment_name = str(tmp_path / 'w'), 'resumes'
    runner = Runner.from_cfg(cfg)
    with pytest.raises(ValueError, match=r"meta\['config'\]"):
        runner.resume(str(with_text(run, tmp_path / 'iter_1.pth', tmp_path / 'marker')))
    assert not (tmp_path / 'marker').exists()


@pytest.mark.parametrize('scheme', [s for s in CheckpointLoader._schemes if s])
def test_nothing_is_downloaded_and_unpickled(scheme, run, tmp_path):
    """MMEngine fetches and unpickles what a path like this names; each of its own schemes is refused."""
    path = scheme.replace(r'(\S+\:)?', 'cluster:') + 'server/model.pth'
    with pytest.raises(ValueError, match='is a URL'):
        script('train.py', run.vae, WORK, tmp_path, '--cfg-options', f'load_from={path}')
    with pytest.raises(ValueError, match='is a URL'):
        resolve_checkpoint(path)


def test_a_note_of_the_last_checkpoint_does_not_lead_out_of_the_work_directory(run, tmp_path):
    outside, inside = tmp_path / 'outside', tmp_path / 'inside'
    for folder in (outside, inside):
        folder.mkdir()
        shutil.copy(run.checkpoint, folder / 'iter_5.pth')
    for note in (str(outside / 'iter_5.pth'), '../outside/iter_5.pth', 'http://server/iter_5.pth'):
        (inside / 'last_checkpoint').write_text(note)
        assert resolve_checkpoint(str(inside)) == str(inside / 'iter_5.pth')


@pytest.mark.parametrize('name', ['../secret/a.mp4', '/{root}/secret/a.mp4', 'sub/a.mp4', '..', ''])
def test_a_list_found_beside_videos_does_not_lead_out_of_their_folder(name, tmp_path, write_video):
    write_video(tmp_path / 'secret' / 'a.mp4')
    write_video(tmp_path / 'given' / 'a.mp4')
    files = [{'file': name.format(root=tmp_path), 'label': None}]
    (tmp_path / 'given' / 'samples.json').write_text(json.dumps({'complete': True, 'files': files}))
    with pytest.raises(ValueError, match='samples must be in the same folder'):
        DATASETS.build(videos_config(str(tmp_path / 'given'), clip_len=5))
    named = tmp_path / 'list.txt'  # what the user writes and names may lead anywhere
    named.write_text(f'{tmp_path}/secret/a.mp4\ngiven/a.mp4\n')
    assert len(DATASETS.build(videos_config(str(named), clip_len=5))) == 2


@pytest.mark.parametrize('name', ['../outside/shard-00000.safetensors', '/etc/passwd', 'x.safetensors', 7, None])
def test_a_manifest_of_latents_names_its_own_shards(name, run, tmp_path):
    shutil.copytree(run.folder / 'latents', tmp_path / 'outside')
    shutil.copytree(run.folder / 'latents', tmp_path / 'latents')
    manifest = tmp_path / 'latents' / latent_shards.MANIFEST
    content = json.loads(manifest.read_text())
    content['shards'][0]['name'] = name
    manifest.write_text(json.dumps(content))
    with pytest.raises(ValueError, match='not a shard of this folder'):
        LatentDataset(tmp_path / 'latents')


ODD_NAMES = (
    '$(touch marker).mp4',
    '; touch marker;.mp4',
    '`touch marker`.mp4',
    '| touch marker.mp4',
    '-i marker.mp4',
    '%03d.mp4',
    'concat:a|b.mp4',
    'it\'s "quoted".mp4',
    'line\nbreak.mp4',
    'ünï ☃.mp4',
)


@pytest.mark.parametrize('name', ODD_NAMES)
def test_names_of_files_are_names_and_no_commands(name, run, tmp_path, monkeypatch, write_video, capsys):
    monkeypatch.chdir(tmp_path)
    plain = Path(write_video(tmp_path / 'plain.mp4', size=(32, 32)))
    for folder in ('real', 'fake'):
        (tmp_path / folder).mkdir()
        for target in (name, 'other.mp4'):
            shutil.copy(plain, tmp_path / folder / target)
    there = set(tmp_path.rglob('*'))
    script(
        *('evaluate_videos.py', 'real', 'fake', '--metrics', 'psnr', '--out', 'o.json', '--workers', 0),
        *('--cache-dir', 'cache'),
    )
    assert json.loads((tmp_path / 'o.json').read_text())['metrics']['recon/psnr'] > 40
    assert len(read_video(Path('real', name))[0][0, 0]) == 20
    script('analysis/latents.py', run.vae, run.checkpoint, '--videos', 'real', '--out', 'seen', '--num-frames', 5)
    made = {path.relative_to(tmp_path).parts[0] for path in set(tmp_path.rglob('*')) - there}
    assert made <= {'o.json', 'cache', 'seen'}, made


def test_an_upload_is_a_video_or_an_image_and_its_name_leads_nowhere(run, tmp_path, write_video):
    page = WebPage(VideoAutoencoderInferencer(run.vae, run.checkpoint), None, (32, 32), 9)
    video = write_video(tmp_path / 'secret' / 'a.mp4')
    playlist = tmp_path / 'upload.mp4'
    playlist.write_text(f'#EXTM3U\n#EXTINF:1,\n{video}\n#EXT-X-ENDLIST\n')
    listed = tmp_path / 'upload.txt'
    listed.write_text(f'{video}\n')
    for upload in (playlist, listed, tmp_path / 'secret', tmp_path / 'missing.mp4'):
        with pytest.raises((ValueError, ClipError)):
            page.reconstruct(str(upload))
    for name in ('$(touch marker).mp4', '...mp4', ' .mp4'):
        shown = Path(page.reconstruct(str(shutil.copy(video, tmp_path / name)))[0])
        assert shown.parent == Path(page._folder.name)
        assert shown.stem.isalnum()  # nothing of the upload's name is in it


def test_only_the_loopback_is_served_and_no_folder_of_this_machine(run, tmp_path, monkeypatch):
    """What the script asks of gradio, which need not be installed."""
    asked = {}
    monkeypatch.setattr(web, 'build_page', lambda page: SimpleNamespace(launch=lambda **options: asked.update(options)))
    monkeypatch.setattr(web.signal, 'signal', lambda *_: None)
    web.main(['--vae', str(run.vae), str(run.checkpoint)])
    assert asked['server_name'] == '127.0.0.1'
    assert asked['share'] is False
    assert not asked.get('allowed_paths')


SOURCES = sorted(path for folder in ('pvvae_plugin', 'tools', 'projects') for path in (ROOT / folder).rglob('*.py'))
FORBIDDEN_CALLS = {
    'eval',
    'exec',
    'os.system',
    'os.popen',
    'pickle.load',
    'pickle.loads',
    'yaml.load',
    'Config.fromstring',
    'load_checkpoint',
    'torch.hub.load_state_dict_from_url',
}
# Each in one place, which says why it is safe.
ALLOWED = {'torch.load': 'safe_globals.py', 'torch.jit.load': 'i3d_torchscript.py'}


@pytest.mark.parametrize('source', SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_source_runs_text_or_loads_carelessly(source):
    for node in ast.walk(ast.parse(source.read_text())):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        assert name not in FORBIDDEN_CALLS, f'{source}:{node.lineno}: {name}'
        assert ALLOWED.get(name, source.name) == source.name, f'{source}:{node.lineno}: {name}'
        assert options.get('shell', 'False') == 'False', f'{source}:{node.lineno}: {name} with a shell'
        assert options.get('allow_pickle', 'False') == 'False', f'{source}:{node.lineno}: {name} unpickles'
        assert options.get('weights_only', 'True') == 'True', f'{source}:{node.lineno}: {name} unpickles'
        if name.endswith('from_pretrained') and ({'use_safetensors', 'local_files_only'} & set(options)):
            assert options['use_safetensors'] == 'True'
            assert 'trust_remote_code' not in options
