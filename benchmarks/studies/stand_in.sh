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
for index in range(10):  # a picture of each class
    path = Path(sys.argv[1], "train", str(index), "0.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16), (20 * index, 90, 120)).save(path)
Path(sys.argv[1], "done").touch()
END
"$python" -m benchmarks.studies.sizes "$out/sizes.json" --size "$size"

train() { # FOLDER OPTIONS: one step, unless it is done
    [ ! -e "$1/done" ] || return 0
    "$python" -m dmp_cli train --vae none --data "$out/pictures/train" --steps 1 --batch-size 2 --sample-every 0 \
        --workers 0 --resume --quiet -o "$@"
    touch "$1/done"
}
train "$out/base-1" --method scratch --backbone "$out/sizes.json" --ema 0.9
train "$out/rates/dmp-0.001" --backbone "$out/base-1/backbone-ema.safetensors" --lr 1e-3
