#!/usr/bin/env bash
# The shape of cifar10.sh, for a rehearsal of what starts and stops it: the same arguments, the same folders, and sizes
# that say nothing. It makes its own pictures.
set -euo pipefail
out=$2 size=$3
python=${PYTHON:-python3}
export OMP_NUM_THREADS=1
mkdir -p "$out"

[ -e "$out/pictures/done" ] || "$python" - "$out/pictures" <<'END'
import sys
from pathlib import Path
from PIL import Image
for index in range(8):
    path = Path(sys.argv[1], "train", str(index % 2), f"{index}.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16), (30 * index, 90, 120)).save(path)
Path(sys.argv[1], "done").touch()
END
"$python" -m benchmarks.studies.sizes "$out/sizes.json" --size "$size"

# What is trained at both places: one step.
train() { "$python" -m dmp_cli train --vae none --data "$out/pictures/train" --steps 1 --batch-size 2 --sample-every 0 \
    --workers 0 --resume --quiet "$@"; }
base=$out/base-1 rate=$out/rates/dmp-0.001
[ -e "$base/done" ] || { train --method scratch --backbone "$out/sizes.json" --ema 0.9 -o "$base" && touch "$base/done"; }
[ -e "$rate/done" ] || { train --backbone "$base/backbone-ema.safetensors" --lr 1e-3 -o "$rate" && touch "$rate/done"; }
