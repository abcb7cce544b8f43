#!/usr/bin/env bash
# The kernels on a GPU that is lent for minutes: are they right, then how fast are they. Under eight minutes in all.
#
#     bash benchmarks/gpu.sh FOLDER [PYTHON]
#
# leaves in FOLDER tests.txt (the tests of the kernels), gpu.json and gpu.txt (benchmarks/gpu.py, at fewer sizes than it
# has by itself). PYTHON has hf_elmo's requirements, pytest and Triton; without it, it is `python`. The status is that of
# the tests, or else of the figures: figures of kernels that are wrong are not measured. Nothing is installed.
set -u -o pipefail
cd "$(dirname "$0")/.." || exit 1
out=${1:?give a folder for the results, as in: bash benchmarks/gpu.sh results}
python=${2:-python}
mkdir -p "$out" || exit 1
export HF_HUB_OFFLINE=1 PYTHONPATH=.

"$python" -c 'import sys, torch, triton; sys.exit(not torch.cuda.is_available())' 2> /dev/null || {
  echo "error: $python has no torch with a GPU, or no Triton: there is nothing to run." >&2
  exit 1
}
# Limits of their own: a test that hangs leaves no time that anything else could use.
timeout 210 "$python" -m pytest -n 0 -q -rs tests/model/lstm/test_lstm_gpu.py 2>&1 | tee "$out/tests.txt" || exit
timeout 240 "$python" -m benchmarks.gpu --batches 1 64 --lengths 26 100 --output "$out/gpu.json" 2>&1 | tee "$out/gpu.txt"
