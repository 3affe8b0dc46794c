#!/bin/sh
# qwen3-vl-8b-fp8 on balanced_24gb: fits one GPU of balanced_24gb; fp8 is native from compute 8.9, slower (weight-only) below
# generated from stack.yaml by imageworks compile; do not edit
# plan sha256:dcb0921577abe9c329037b405e638fb60806499298f645b5e1e673945d620780, stack.yaml:93
#
# Why these values:
#   --host=127.0.0.1                     only this machine; clients come through the proxy
#   --port=24003                         derived: one port per model id
#   --served-model-name=qwen3-vl-8b-fp8  the id, by which readiness recognises the model
#   --max-model-len=9984                 context: declared 6144 to 32768: the largest multiple of 256 that fits; 21.40 usable - 12.78 at the least - 8.09 for qwen2.5-vl-7b-q4 = 0.54 GiB left on GPU 0
#   --max-num-seqs=1                     concurrency: declared 1 to 8: the least; 21.40 usable - 12.78 at the least - 8.09 for qwen2.5-vl-7b-q4 = 0.54 GiB left on GPU 0, context first
#   --gpu-memory-utilization=0.601       start check only: 13.30 GiB planned of 22.10, the smallest card that matches, rounded down
#   --kv-cache-memory-bytes=1474560000   bounds the KV cache exactly: 9984 tokens x 1 x 144 KiB, and 1 block of 16 that vLLM keeps = 1.37 GiB
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
  --max-model-len=9984 \
  --max-num-seqs=1 \
  --gpu-memory-utilization=0.601 \
  --kv-cache-memory-bytes=1474560000 \
  '--limit-mm-per-prompt={"image":2}' \
  --enable-auto-tool-choice \
  --tool-call-parser=hermes
