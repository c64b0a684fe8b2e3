#!/usr/bin/env bash
# Check TensorRT on a machine with an NVIDIA GPU: install, run benchmarks/gpu.py on a bundle.
# Where nothing of NVIDIA is seen, it installs nothing, prints `SKIPPED: reason` and exits with 0.
#
#   benchmarks/gpu_check.sh [BUNDLE] [options of benchmarks/gpu.py]
#
#   BUNDLE   a bundle with its `data/` beside it, such as one copied from the machine that trained it; without it, one is
#            trained here, for which Python 3.11 or later is needed
#   BACKEND  tensorrt-rtx (default: for RTX GPUs, complete on PyPI) or tensorrt (default on a Jetson)
#   PRESET   preset to train (default quick; smoke's logits nearly tie, so any device may flip its labels)
#   PYTHON   3.10 or later (default python3, the system's: JetPack's TensorRT is made for that one)
#   VENV     virtual environment to install into (default runs/gpu-check/venv); reused if it is complete
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

PRESET="${PRESET:-quick}"
PYTHON="${PYTHON:-python3}"
VENV="${VENV:-runs/gpu-check/venv}"
OUT="runs/gpu-check/$PRESET"
BUNDLE="$OUT/student.bundle"
trains=train
if [[ -n "${1:-}" && "$1" != -* ]]; then
    BUNDLE="$1" trains="" OUT="runs/gpu-check"
    shift
    [[ -f "$BUNDLE/manifest.json" ]] || { echo "error: $BUNDLE: is no bundle" >&2; exit 2; }
fi

# What the system shows of NVIDIA; this needs no package. `kind` is jetson, pc or none, `cuda` the major of its CUDA.
look='from deploy.backends.tensorrt_gpu.signs import look; s = look()
print("jetson" if s.l4t else "pc" if s.any else "none", s.cuda_major or 13, "container" if s.container else "")'
read -r kind cuda container <<<"$("$PYTHON" -c "$look")" || { echo "error: $PYTHON: needs to be 3.10 or later" >&2; exit 2; }
if smi="$(nvidia-smi 2>/dev/null)"; then # under WSL the only sign
    [[ "$kind" != none ]] || kind=pc
    version="$(sed -n 's/.*CUDA Version: *\([0-9]*\).*/\1/p' <<<"$smi" | head -1)"
    cuda="${version:-$cuda}"
fi
if [[ "$kind" == none ]]; then
    hint="${container:+; a container sees a GPU only if it is started with --gpus all (on a Jetson with --runtime nvidia)}"
    echo "SKIPPED: no sign of an NVIDIA GPU (no driver, no device file, nothing on the PCI bus)$hint"
    exit 0
fi
default=tensorrt-rtx
[[ "$kind" != jetson ]] || default=tensorrt
BACKEND="${BACKEND:-$default}"

python="$VENV/bin/python"
if [[ ! -f "$VENV/.complete-$BACKEND-$trains" ]]; then
    echo "Installing what $BACKEND needs for CUDA $cuda${trains:+, and PyTorch,} into $VENV"
    "$PYTHON" -m venv --system-site-packages "$VENV" # JetPack installs TensorRT as a system package
    if "$python" -c "import ${BACKEND//-/_}" 2>/dev/null; then
        extra="cuda$cuda"
    else
        extra="${BACKEND/tensorrt-rtx/rtx}-cu$cuda"
    fi
    "$python" -m pip install --quiet -e ".[${trains:+$trains,}$extra]"
    touch "$VENV/.complete-$BACKEND-$trains"
fi
reason="$("$python" -c 'from deploy.backends.tensorrt_gpu.cuda import why_not; print(why_not())')"
if [[ -n "$reason" ]]; then
    echo "error: the NVIDIA GPU of this machine cannot be used: $reason" >&2
    exit 2
fi

# A failed gate is reported, but does not stop the checks of the files that exist.
if [[ -n "$trains" ]]; then
    "$python" distill/run.py "$PRESET" --out "$OUT" --resume || [[ -f "$BUNDLE/manifest.json" ]]
fi
"$python" deploy/build_engine.py "$BUNDLE" --backend onnxruntime --precision fp16 || true
"$python" benchmarks/gpu.py "$BUNDLE" --backend "$BACKEND" --json "$OUT/gpu.json" "$@"
