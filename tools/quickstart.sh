#!/usr/bin/env bash
# Train a predictive VAE and a generator on its latents on a CPU, evaluate both, and save pictures.
# Run it again to resume.
. "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"
setup_env mmcv
vae=work_dirs/quickstart
generator=work_dirs/quickstart_generator
mkdir -p "$vae" "$generator"

trap 'code=$?; [ $code = 0 ] || echo "stopped (exit code $code); run \"bash tools/quickstart.sh\" again to resume"' EXIT
trap 'exit 130' INT  # some commands are killed by Ctrl-C, and bash would skip the trap of EXIT

# Print only estimate, progress and warnings; the full log is in the work directory. Errors go to stderr, which is not
# filtered. After Ctrl-C, the filter still prints where the state was saved.
train() { # CONFIG WORK_DIR
    python tools/train.py "$1" --work-dir "$2" --resume | {
        trap '' INT
        sed -unE -e 's/^ *time +(about .*)/estimate: \1/p' \
            -e 's/.* - INFO - (iteration .* took .*)/\1/p' \
            -e 's/.* - (WARNING|ERROR) - (.*)/\1: \2/p' \
            -e 's/.*Iter\(train\) *(\[[^]]*\]).*eta: ([0-9:]+).* loss: ([0-9.]+).*/iteration \1  left \2  loss \3/p' \
            -e 's/.*(recon\/psnr: [0-9.]+) .*(predict\/k1_vs_repeat: [0-9.]+).*(predict\/k2_vs_repeat: [0-9.]+).*/  \1  \2  \3/p' \
            -e 's/.*Iter\(val\).*(flow\/loss: [0-9.]+).*/  held-out \1/p'
    }
}

echo
echo "Training configs/pvvae_demo.py: a VAE that predicts clips of moving shapes (about 5 minutes on 2 cores)"
train configs/pvvae_demo.py "$vae"

echo
echo "Testing the VAE on held-out clips"
python tools/test.py configs/pvvae_demo.py "$vae" --work-dir "$vae" --out "$vae/metrics.json" --show-dir "$vae/test" \
    > "$vae/test.log"
python tools/analysis/report.py "$vae/metrics.json" --max-ratio 0.95

echo
echo "Training configs/dit_demo.py: a generator of such clips on the VAE's latents (about 6 minutes on 2 cores)"
train configs/dit_demo.py "$generator"

echo
echo "Generating videos: four per motion"
python tools/sample.py configs/dit_demo.py "$generator" --num 28 --num-inference-steps 50 --guidance-scale 2 \
    --out-dir "$generator/samples"

echo
echo "Results:"
echo "ground truth, reconstruction, and prediction from the first frames (predicted frames in orange):"
ls "$vae"/test/vis/test/*.png "$vae"/test/vis/test/*.gif
echo "generated videos with the requested motion:"
ls "$generator"/samples/sheet.png "$generator"/samples/grid.gif
echo "Curves: tensorboard --logdir work_dirs"
