#!/usr/bin/env bash
# Check TensorRT on a fresh machine with an NVIDIA GPU: install, make a bundle, run benchmarks/gpu.py on it.
# Prints `SKIPPED: reason` and exits with 0 if there is no GPU.
#
#   benchmarks/gpu_check.sh [options of benchmarks/gpu.py]
#
#   BACKEND  tensorrt-rtx (default: for RTX GPUs, complete on PyPI) or tensorrt
#   PRESET   preset to train (default quick; smoke's logits nearly tie, so any device may flip its labels)
#   PYTHON   3.11 or later (default python3)
#   VENV     virtual environment to install into (default runs/gpu-check/venv); reused if it exists
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

BACKEND="${BACKEND:-tensorrt-rtx}"
PRESET="${PRESET:-quick}"
PYTHON="${PYTHON:-python3}"
VENV="${VENV:-runs/gpu-check/venv}"
OUT="runs/gpu-check/$PRESET"
BUNDLE="$OUT/student.bundle"

# Some Jetsons and containers lack nvidia-smi: then ask CUDA itself, if this Python can.
if ! nvidia-smi -L >/dev/null 2>&1; then
    ask='from deploy.backends.tensorrt_gpu.cuda import why_not; print(why_not())'
    reason="$("$PYTHON" -c "$ask" 2>/dev/null || echo "$PYTHON cannot ask CUDA")"
    if [[ -n "$reason" ]]; then
        echo "SKIPPED: nvidia-smi shows no GPU; $reason"
        exit 0
    fi
fi

if [[ ! -x "$VENV/bin/python" ]]; then
    echo "Installing PyTorch and $BACKEND into $VENV (several GB: some minutes)"
    "$PYTHON" -m venv --system-site-packages "$VENV" # JetPack installs TensorRT as a system package
    # Packages for a newer CUDA than the driver's do not run.
    cuda="$(nvidia-smi 2>/dev/null | sed -n 's/.*CUDA Version: *\([0-9]*\).*/\1/p' || true)"
    packages=("cuda-bindings${cuda:+<$((cuda + 1))}")
    if ! "$VENV/bin/python" -c "import ${BACKEND//-/_}" 2>/dev/null; then
        packages+=("$BACKEND${cuda:+-cu$cuda}")
    fi
    "$VENV/bin/python" -m pip install --quiet -e '.[train]' "${packages[@]}"
fi
python="$VENV/bin/python"

# A failed gate is reported, but does not stop the checks of the files that exist.
"$python" distill/run.py "$PRESET" --out "$OUT" --resume || [[ -f "$BUNDLE/manifest.json" ]]
"$python" deploy/build_engine.py "$BUNDLE" --backend onnxruntime --precision fp16 || true
"$python" benchmarks/gpu.py "$BUNDLE" --backend "$BACKEND" --json "$OUT/gpu.json" "$@"
