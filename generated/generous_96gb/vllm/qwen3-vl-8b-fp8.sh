#!/bin/sh
# qwen3-vl-8b-fp8 on generous_96gb: fits one GPU of generous_96gb; fp8 is native from compute 8.9, slower (weight-only) below
# generated from stack.yaml by imageworks compile; do not edit
# plan sha256:e7ab9bbf9f7c56804a1c9109c5a5a400aea76462a97f95c9cc51424a3799ba9d, stack.yaml:93
#
# Why these values:
#   --host=127.0.0.1                     only this machine; clients come through the proxy
#   --port=24003                         derived: one port per model id
#   --served-model-name=qwen3-vl-8b-fp8  the id, by which readiness recognises the model
#   --max-model-len=32768                context: declared 6144 to 32768: all of it fits; 88.00 usable - 12.78 at the least - 3.42 for florence-2-large - 8.09 for qwen2.5-vl-7b-q4 - 3.42 for siglip-large - 15.85 for gpt-oss-20b = 44.45 GiB left on GPU 0
#   --max-num-seqs=8                     concurrency: declared 1 to 8: all of it fits; 88.00 usable - 12.78 at the least - 3.42 for florence-2-large - 8.09 for qwen2.5-vl-7b-q4 - 3.42 for siglip-large - 15.85 for gpt-oss-20b = 44.45 GiB left on GPU 0, context first
#   --gpu-memory-utilization=0.504       start check only: 47.93 GiB planned of 95.00, the smallest card that matches, rounded down
#   --kv-cache-memory-bytes=38657064960  bounds the KV cache exactly: 32768 tokens x 8 x 144 KiB, and 1 block of 16 that vLLM keeps = 36.00 GiB
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
  --max-num-seqs=8 \
  --gpu-memory-utilization=0.504 \
  --kv-cache-memory-bytes=38657064960 \
  '--limit-mm-per-prompt={"image":2}' \
  --enable-auto-tool-choice \
  --tool-call-parser=hermes
