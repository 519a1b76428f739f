#!/usr/bin/env bash
# From nothing to a trained predictive VAE, its numbers and its pictures, on a CPU. Run again, it goes on where it stood.
. "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"
setup_env mmcv
out=work_dirs/quickstart
mkdir -p "$out"

echo
echo "Training configs/pvvae_demo.py: a VAE that finishes clips of moving shapes (about 6 minutes on 2 cores)"
# The whole log stays in $out; here only its progress. Errors go to stderr, which is not filtered.
python tools/train.py configs/pvvae_demo.py --work-dir "$out" --resume |
    sed -unE -e 's/.*Iter\(train\) *(\[[^]]*\]).*eta: ([0-9:]+).* loss: ([0-9.]+).*/iteration \1  left \2  loss \3/p' \
        -e 's/.*(recon\/psnr: [0-9.]+) .*(predict\/k1_vs_repeat: [0-9.]+).*(predict\/k2_vs_repeat: [0-9.]+).*/  \1  \2  \3/p'

echo
echo "Testing it on clips it has not seen"
python tools/test.py configs/pvvae_demo.py "$out" --work-dir "$out" --out "$out/metrics.json" --show-dir "$out/test" \
    > "$out/test.log"
python tools/analysis/report.py "$out/metrics.json" --max-ratio 0.95

echo
echo "Look at these (truth, reconstruction, and the clip finished from its first frames; predicted frames in orange):"
ls "$out"/test/vis/test/*.png "$out"/test/vis/test/*.gif
echo "Curves: tensorboard --logdir $out"
