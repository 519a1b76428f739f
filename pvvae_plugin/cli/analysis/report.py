"""Print the metrics of tools/test.py as a table.

    pvvae report metrics.json
    python tools/analysis/report.py metrics.json --max-ratio 0.95

With --max-ratio, also check the MSE of every prediction relative to repeating the last observed frame. The exit code is
1 if any ratio exceeds the limit.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pvvae_plugin.cli.parser import CommandParser
from pvvae_plugin.evaluation import format_prediction_table, summary_line
from pvvae_plugin.files import read_json


def main(argv: list[str] | None = None) -> None:
    parser = CommandParser(description=__doc__)
    parser.add_argument('metrics', type=Path, help='file written by tools/test.py --out')
    parser.add_argument('--max-ratio', type=float, help='largest allowed MSE / MSE of repeating the last frame')
    args = parser.parse_args(argv)
    try:
        record = read_json(args.metrics, 'what tools/test.py --out writes')
        metrics, checkpoint = record['metrics'], record['checkpoint']
    except (OSError, ValueError, KeyError) as error:
        missing = f'{args.metrics} has no {error}; give a file that tools/test.py --out wrote'
        sys.exit(f'error: {missing if isinstance(error, KeyError) else error}')

    print(f'checkpoint {checkpoint} (sha256 {str(record.get("checkpoint_sha256"))[:12]})')
    records = record.get('records', {})
    scalars = {
        k: v
        for k, v in metrics.items()
        if not k.startswith('predict/') and not isinstance(v, list) and not any(name in k for name in records)
    }
    for name, value in scalars.items():
        print(f'  {name.removeprefix("recon/"):<20}' + (f'{value:10.4f}' if value is not None else '         -'))
    for of_sets in records.values():
        print('\n'.join([f'  {summary_line(of_sets)}', *(f'    {warning}' for warning in of_sets['warnings'])]))
    prediction = {k.removeprefix('predict/'): v for k, v in metrics.items() if k.startswith('predict/')}
    if prediction:
        print(format_prediction_table(prediction))
    if args.max_ratio is not None:
        ratios = {k.split('_')[0]: v for k, v in prediction.items() if k.endswith('vs_repeat') and 'moving' not in k}
        # None marks a non-finite value.
        holds = bool(ratios) and all(value is not None and value <= args.max_ratio for value in ratios.values())
        listed = ', '.join(f'{name}: {value if value is None else round(value, 3)}' for name, value in ratios.items())
        verdict = 'yes' if holds else 'NO'
        print(f'MSE / repeat at most {args.max_ratio} for every number of dropped groups: {verdict} ({listed})')
        if not holds:
            sys.exit(1)
