"""Reports of the study, including incomplete and invalid results."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from projects.predictive_study.measurements import collect, prediction
from projects.predictive_study.plan import Plan
from projects.predictive_study.report import latent_columns, section, unrecognized, write_report

from .study_runs import RECORD, STEPS, call, settings, two_seeds, write_run

PUBLISHED = Path(__file__).parents[1] / 'results'


def test_the_report_compares_runs_of_the_same_seed(tmp_path):
    write_report(two_seeds(tmp_path))
    found = json.loads((tmp_path / 'results.json').read_text())
    compared = found['against']['baseline']['full']
    # Seed 0 comes down to 3 halfway between 4 at 1000 and 2 at 2000, in doublings; seed 1 never reaches 4.
    assert compared['proxy_time']['share_of_steps_to_its_final'] == [pytest.approx(2**-1.5), None]
    # The baseline's seed 1 is at 6 at 2000; its seed 0 never at 1.
    assert compared['proxy_time']['its_share_of_steps_to_this_final'] == [None, 0.5]
    assert compared['proxy_time']['final_difference'] == [-2, 2]
    assert compared['proxy_time']['mean_difference'] == 0
    assert compared['class/accuracy']['share_of_steps_to_its_final'] == pytest.approx([0.5, 0.5])
    assert compared['class/accuracy']['final_difference'] == pytest.approx([0.1, 0.1])
    # A curve that does not fall has no step at which it reached its end.
    assert compared['own/proxy_time']['share_of_steps_to_its_final'] == ['does not fall'] * 2
    run = found['arms']['full']['seeds']['1']
    assert run['flow_loss'] == {'500': 0.75} and run['floors']['proxy_time'] == 0.25
    # Own distances are divided by their floor, except for kernel distances, whose expected floor is 0.
    assert run['curve']['4000']['own/proxy_time'] == 1.5 and run['curve']['4000']['own/proxy_time_kernel'] == 3.0
    text = (tmp_path / 'results.md').read_text()
    assert '24.5 (24, 25)' in text and '25 (25, 25)' in text
    assert 'jackknife; median of runs): proxy_time 0.12.' in text
    assert 'procedural clips (plain); a desk, 2 cores; 2026-11-01; torch 2.13.0.' in text
    # 12.706 standard errors of 2.
    assert rows_below(text, '### Minus "reconstruction only"')[0].startswith(
        '| full: + decoder fine-tuning | +0 ± 25 | '
    )
    assert '| | **proxy_time** | own/proxy_time |' in text
    for heading, shares in (('### Share of', '0.35, not reached'), ('### The reverse', 'not reached, 0.50')):
        assert rows_below(text, heading)[0].startswith(f'| full: + decoder fine-tuning | {shares} | does not fall, ')
    assert (tmp_path / 'figures' / 'convergence.png').is_file()


def rows_below(text: str, heading: str) -> list[str]:
    """Return the rows of the table below a heading."""
    return text.split(heading)[1].split('\n\n')[1].splitlines()[2:]


def test_what_latents_do_without_motion_is_told_where_it_was_measured():
    frozen = {'of_frozen_clips': {'relative': [0.25, 0.5]}}
    correlations = {'motion_correlation': 0.5, 'motion_correlation_per_pair': [0.75, 0.5]}
    unknown = {'motion_correlation': 0.5, 'motion_correlation_per_pair': [0.75, None]}
    arms = {
        'baseline': {'title': 'old', 'seeds': {'0': {'ltd': {'relative': [0.5, 1.0]}, **unknown}}},
        'full': {'title': 'new', 'seeds': {'0': {'ltd': {'relative': [0.75, 1.5], **frozen}, **correlations}, '1': {}}},
    }
    assert list(section('Latents', arms, latent_columns(arms)))[3:] == [
        '| | LTD 1 | LTD 2 | LTD 1, frozen | LTD 2, frozen | correlation with flow | the same, pairs apart |',
        '|---|---|---|---|---|---|---|',
        '| old | 0.5 | 1 | - | - | 0.5 | - |',
        '| new | 0.75 | 1.5 | 0.25 | 0.5 | 0.5 | 0.625 |',
    ]


def test_vaes_that_lose_what_the_judge_goes_by_are_named():
    def arm(title, *shares):
        runs = [{'vae': {'class/accuracy': share}} for share in shares]
        return {'title': title, 'seeds': {str(i): run for i, run in enumerate([*runs, {}])}}

    arms = {'baseline': arm('kept', 0.4, 0.75), 'motion': arm('lost', 0.125, 0.375), 'full': arm('unmeasured')}
    assert 'recognized: lost (25%).' in ''.join(unrecognized(arms))
    assert list(unrecognized({'baseline': arms['baseline'], 'full': arms['full']})) == []


def test_the_report_takes_what_is_done_and_nothing_else(tmp_path):
    plan = two_seeds(tmp_path)
    # A running test has created an empty file. A generator without its last test has no final value.
    (plan.folder('full', 1) / 'generator_4000.json').write_text('')
    (tmp_path / 'stages' / 'full_seed1_at_4000.json').unlink()
    # The report covers all arms in the folder, not only those of the current call.
    write_report(Plan(settings(), ['motion'], [0], tmp_path))
    found = json.loads((tmp_path / 'results.json').read_text())
    assert list(found['arms']) == ['baseline', 'full'] and list(found['arms']['full']['seeds']) == ['0', '1']
    assert list(found['arms']['full']['seeds']['1']['curve']) == ['500', '1000', '2000']
    assert found['against']['baseline']['full']['proxy_time']['final_difference'] == [-2]
    rows = rows_below((tmp_path / 'results.md').read_text(), '### Generation, last checkpoint')
    assert rows[1].startswith('| full: + decoder fine-tuning | 1 |')


def test_numbers_that_are_none_and_names_that_are_no_seeds_cost_no_report(tmp_path):
    plan = two_seeds(tmp_path)
    (tmp_path / 'baseline' / 'seed0_backup').mkdir()
    (tmp_path / 'baseline' / 'seed0.tar').touch()
    path = plan.folder('full', 0) / 'generator_1000.json'
    content = json.loads(path.read_text())
    content['records']['gen/proxy_time9_256']['value'] = content['metrics']['gen/proxy_time9_256'] = math.nan
    path.write_text(json.dumps(content))
    write_report(plan)
    found = json.loads((tmp_path / 'results.json').read_text())
    assert list(found['arms']['baseline']['seeds']) == ['0', '1']
    assert 'proxy_time' not in found['arms']['full']['seeds']['0']['curve']['1000']
    of_time = found['against']['baseline']['full']['proxy_time']
    assert of_time['share_of_steps_to_its_final'][0] == 'not measured' and of_time['final_difference'] == [-2, 2]
    (tmp_path / 'stages' / 'full_seed0_test.json').write_text('{}')
    with pytest.raises(ValueError, match='full_seed0_test.json is damaged .* delete it, and the stage'):
        write_report(plan)


def test_what_decides_is_named_among_any_metrics(tmp_path):
    plan = two_seeds(tmp_path)
    for seed in (0, 1):
        for arm in ('baseline', 'full'):
            for step in STEPS:
                content = json.loads((plan.folder(arm, seed) / f'generator_{step}.json').read_text())
                content['records'] |= {
                    'gen/FVD9_256': {'value': 300.0 + seed},
                    'own/KVD9_256': {'value': 5.0, 'floor': {'value': -0.002}},
                }
                (plan.folder(arm, seed) / f'generator_{step}.json').write_text(json.dumps(content))
    found = collect(plan)
    assert found['primary'] == 'FVD'
    assert found['arms']['full']['seeds']['1']['curve']['4000']['own/KVD'] == 5.0  # not divided: expected floor 0
    assert found['arms']['full']['seeds']['1']['floors']['own/proxy_time'] == 2.0  # the divisor


def test_predictions_of_a_decoder_that_has_forgotten_are_not_shown(tmp_path):
    plan = two_seeds(tmp_path)
    arms = collect(plan)['arms']
    assert prediction(arms['baseline']['seeds']['0'], 'k1_vs_repeat') == 0.5
    assert prediction(arms['full']['seeds']['0'], 'k1_vs_repeat') is None
    before = {'metrics': {'predict/k1_vs_repeat': 0.25}, 'records': {}}
    (plan.folder('full', 0) / 'vae_before.json').write_text(json.dumps(before))
    (tmp_path / 'stages' / 'full_seed0_test_before.json').write_text(json.dumps(RECORD))
    assert prediction(collect(plan)['arms']['full']['seeds']['0'], 'k1_vs_repeat') == 0.25


def test_runs_of_several_machines_are_reported_on_together(tmp_path, capsys):
    whole = two_seeds(tmp_path / 'here')
    elsewhere = Plan(settings(), ['motion', 'full'], [0, 1], tmp_path / 'there')
    for seed in (0, 1):
        write_run(elsewhere, 'motion', seed, dict.fromkeys(STEPS, 2.0 + seed), dict.fromkeys(STEPS, 0.5), psnr=20.0)
    write_run(elsewhere, 'full', 2, dict.fromkeys(STEPS, 2.0), dict.fromkeys(STEPS, 0.5), psnr=20.0)
    write_report(elsewhere)
    added = tmp_path / 'there' / 'results.json'
    other = json.loads(added.read_text())
    other['arms']['full']['title'] = 'as an arm was called once'  # from another version
    added.write_text(json.dumps(other))
    write_report(whole, [added])
    found = json.loads((tmp_path / 'here' / 'results.json').read_text())
    assert list(found['arms']) == ['baseline', 'motion', 'full']
    assert found['arms']['full']['title'].endswith('decoder fine-tuning')
    assert list(found['arms']['full']['seeds']) == ['0', '1', '2']
    assert found['against']['baseline']['motion']['proxy_time']['final_difference'] == [-1, -1]
    assert found['against']['full']['motion']['PSNR']['final_difference'] == [-4, -5]
    # Three arms give a better estimate of the variance than two.
    alone = 12.706 * math.sqrt(8) / math.sqrt(2)
    assert found['against']['baseline']['full']['proxy_time']['interval_95_half_width'] < alone / 3

    report = ('--scale', 'tiny', '--out', str(tmp_path / 'here'), '--report-only', '--add')
    content = json.loads(added.read_text())
    run = {'curve': {'500': {'proxy_time': 'low'}}}
    for change, message in (
        ({'arms': None}, 'has no arms'),
        ({'arms': {'other': {}}}, 'has unknown arms: other; known are baseline'),
        ({'arms': {'motion': []}}, 'motion has no seeds'),
        (
            {'arms': {'motion': {**found['arms']['motion'], 'seeds': {'2': run}}}},
            "motion with seed '2' is not a valid run",
        ),
        ({'settings': {**content['settings'], 'difficulty': 'hard'}}, "is of a study with difficulty='hard'"),
        ({'arms': {'full': found['arms']['full']}}, 'full with seed 0, 1 exists already'),
        ({'arms': {'full': {**found['arms']['full'], 'vae_steps': 9}}}, 'full differs from this study in vae_steps'),
    ):
        added.write_text(json.dumps({**content, **change}))
        with pytest.raises(SystemExit) as ended:
            call(*report, str(added))
        assert message in str(ended.value.code)
    added.write_text(json.dumps({**content, 'sha256': {'configs': 'of an older file'}}))
    with pytest.raises(SystemExit) as ended:
        call(*report, str(added))
    assert ended.value.code == 0
    assert 'its runs were made with a different version of configs' in capsys.readouterr().err
    written = json.loads((tmp_path / 'here' / 'results.json').read_text())
    assert written['merged'] == {str(added): ['configs']}
    added.write_text(json.dumps({**content, 'sha256': 'of an older file'}))
    with pytest.raises(SystemExit, match="sha256 must be a dict, got 'of an older file'; pass the results.json"):
        call(*report, str(added))
    added.write_text('{}')
    with pytest.raises(SystemExit, match='has no settings'):
        call(*report, str(added))
    capsys.readouterr()


@pytest.mark.parametrize('name', sorted(path.stem for path in PUBLISHED.glob('*.json')))
def test_published_tables_are_those_of_the_published_numbers(tmp_path, capsys, name):
    published = json.loads((PUBLISHED / f'{name}.json').read_text())
    asked = published['settings']
    arguments = ['--scale', asked['scale'], '--difficulty', asked['difficulty'], '--still', str(asked['still_share'])]
    if asked['videos']:  # a report needs only the file names
        for split in ('train', 'val'):
            (tmp_path / asked['videos'] / split).mkdir(parents=True)
            (tmp_path / asked['videos'] / split / 'clip.mp4').touch()
        arguments += ['--videos', str(tmp_path / asked['videos'])]
    out = tmp_path / 'study'
    arguments += ['--longer', str(asked['longer']), '--out', str(out), '--report-only']
    with pytest.raises(SystemExit) as ended:
        call(*arguments, '--add', str(PUBLISHED / f'{name}.json'))
    assert ended.value.code == 0
    tables = (PUBLISHED / f'{name}.md').read_text().split('\n\n', 2)[2]  # below a heading and a sentence
    assert tables == (out / 'results.md').read_text()
    generators = any('curve' in run for entry in published['arms'].values() for run in entry['seeds'].values())
    assert ('prediction_and_generation.png' in capsys.readouterr().out) == generators


def test_a_report_of_nothing_says_so(tmp_path):
    assert 'none yet' in write_report(Plan(settings(), ['baseline', 'full'], [0], tmp_path))
    assert json.loads((tmp_path / 'results.json').read_text())['arms'] == {}
