#!/usr/bin/env bash
# All performance figures of one NVIDIA GPU, beside torchvision in the same run. About 25 minutes on an H200.
#
#     bash benchmarks/gpu.sh OUT            needs jax with CUDA, torch and torchvision under one python
#     SMALL=1 bash benchmarks/gpu.sh OUT    the same commands at a tiny size, to try them anywhere
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:?where the tables go}
mkdir -p "$out"
export PYTHONPATH=$PWD JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$out/compiled}
torch=${TORCH:-python}

if [ "${SMALL:-0}" = 1 ]; then
  size=(--rounds 1 --rois 32 --ground_truths 20) train=128 detect=128 batch=1 dense=20
else
  size=(--rounds 10 --dtype bfloat16) train=800 detect=1000 batch=8 dense=600
fi

run() { # NAME ARGUMENTS...
  python benchmarks/throughput.py --torch "$torch" --out "$out/$1.json" "${size[@]}" "${@:2}" | tee "$out/$1.md"
}
profile() { # NAME ARGUMENTS...
  python benchmarks/profile_step.py "${size[@]}" "${@:2}" | tee "$out/$1.md"
}

run train --cases c4-train,fpn-train --side "$train" --batch "$batch"
run train_dense --cases c4-train,fpn-train --side "$train" --batch "$batch" --ground_truths "$dense"
run train_batch1 --cases c4-train,fpn-train --side "$train"
run predict --cases c4-detect,c4-predict,fpn-detect,fpn-predict --side "$detect" --batch "$batch"
for model in c4 fpn; do
  profile "profile_${model}_train" --model $model --task train --side "$train" --batch "$batch"
  profile "profile_${model}_detect" --model $model --task detect --side "$detect" --batch "$batch"
done
