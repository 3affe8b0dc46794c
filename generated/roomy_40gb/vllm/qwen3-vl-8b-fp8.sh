#!/bin/sh
# qwen3-vl-8b-fp8 on roomy_40gb: fits one GPU of roomy_40gb; fp8 is native from compute 8.9, slower (weight-only) below
# generated from stack.yaml by imageworks compile; do not edit
# plan sha256:815ca0553a240561335839942c8d418cae72e1414e2f5b67794509d5e616b520, stack.yaml:93
#
# Why these values:
#   --host=127.0.0.1                     only this machine; clients come through the proxy
#   --port=24003                         derived: one port per model id
#   --served-model-name=qwen3-vl-8b-fp8  the id, by which readiness recognises the model
#   --max-model-len=32768                context: declared 6144 to 32768: all of it fits; 36.00 usable - 12.78 at the least - 15.85 for gpt-oss-20b - 3.42 for siglip-large = 3.95 GiB left on GPU 0
#   --max-num-seqs=1                     concurrency: declared 1 to 8: the least; 36.00 usable - 12.78 at the least - 15.85 for gpt-oss-20b - 3.42 for siglip-large = 3.95 GiB left on GPU 0, context first
#   --gpu-memory-utilization=0.421       start check only: 16.43 GiB planned of 39.00, the smallest card that matches, rounded down
#   --kv-cache-memory-bytes=4834197504   bounds the KV cache exactly: 32768 tokens x 1 x 144 KiB, and 1 block of 16 that vLLM keeps = 4.50 GiB
#   --limit-mm-per-prompt={"image":2}    the most that a role it can answer allows: judge, narration, vision_general
#   --enable-auto-tool-choice            typed: models.qwen3-vl-8b-fp8.vllm
#   --tool-call-parser=hermes            typed: models.qwen3-vl-8b-fp8.vllm
set -eu
stack=$(CDPATH='' cd -- "$(dirname -- "$0")/../../.." && pwd)
cd -- "$stack"
models=${IMAGEWORKS_MODELS:-models}
case $models in /*) ;; *) models=$stack/$models ;; esac
export CUDA_DEVICE_ORDER=PCI_BUS_ID
export CUDA_VISIBLE_DEVICES="${CUDA_VISIBLE_DEVICES:-0}"
export DO_NOT_TRACK=1
export HF_HUB_OFFLINE=1
export VLLM_NO_USAGE_STATS=1
exec vllm serve "$models"/Qwen/Qwen3-VL-8B-Instruct-FP8 \
  --host=127.0.0.1 \
  --port=24003 \
  --served-model-name=qwen3-vl-8b-fp8 \
  --max-model-len=32768 \
  --max-num-seqs=1 \
  --gpu-memory-utilization=0.421 \
  --kv-cache-memory-bytes=4834197504 \
  '--limit-mm-per-prompt={"image":2}' \
  --enable-auto-tool-choice \
  --tool-call-parser=hermes
