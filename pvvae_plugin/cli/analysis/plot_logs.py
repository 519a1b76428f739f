r"""Plot the logged curves of a run.

pvvae plot-logs work_dirs/pvvae_demo --panel recon/psnr
python tools/analysis/plot_logs.py work_dirs/pvvae_folder64 --out curves.png \
    --panel recon/psnr --panel predict/k1_moving_vs_repeat predict/k4_moving_vs_repeat
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt  # noqa: E402  (after the backend is chosen)

from pvvae_plugin.cli.parser import CommandParser  # noqa: E402
from pvvae_plugin.files import read_scalars  # noqa: E402


def main(argv: list[str] | None = None) -> None:
    parser = CommandParser(description=__doc__)
    parser.add_argument('work_dir', type=Path, help='work directory of the run')
    parser.add_argument(
        '--panel',
        nargs='+',
        action='append',
        required=True,
        metavar='KEY',
        help='keys to plot in one panel; repeat for more panels',
    )
    parser.add_argument('--out', type=Path, default=Path('curves.png'), help='output picture (default: curves.png)')
    args = parser.parse_args(argv)
    lines = read_scalars(args.work_dir)
    known = sorted({key for line in lines for key in line})
    unknown = [key for panel in args.panel for key in panel if key not in known]
    if unknown:
        logged = ', '.join(known) or 'nothing'
        sys.exit(f'error: {args.work_dir} has no logged key {", ".join(unknown)}; logged: {logged}')

    figure, axes = plt.subplots(1, len(args.panel), figsize=(4.5 * len(args.panel), 3.2), squeeze=False)
    for axis, panel in zip(axes[0], args.panel, strict=True):
        for key in panel:
            points = [(line['step'], line[key]) for line in lines if key in line]
            axis.plot(*zip(*points, strict=True), 'o-' if len(points) < 50 else '-', label=key)
        axis.set_xlabel('iteration')
        axis.legend(fontsize=8)
        axis.grid(alpha=0.3)
    figure.tight_layout()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.out, dpi=90)
    print(f'written: {args.out}')
