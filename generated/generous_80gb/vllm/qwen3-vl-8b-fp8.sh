#!/bin/sh
# qwen3-vl-8b-fp8 on generous_80gb: fits one GPU of generous_80gb; fp8 is native from compute 8.9, slower (weight-only) below
# generated from stack.yaml by imageworks compile; do not edit
# plan sha256:b866c43f4019e399bfb1f654f4513b98d435a1fd13eb88c961e061d6b462f183, stack.yaml:93
#
# Why these values:
#   --host=127.0.0.1                     only this machine; clients come through the proxy
#   --port=24003                         derived: one port per model id
#   --served-model-name=qwen3-vl-8b-fp8  the id, by which readiness recognises the model
#   --max-model-len=32768                context: declared 6144 to 32768: all of it fits; 72.00 usable - 12.78 at the least - 3.42 for florence-2-large - 8.09 for qwen2.5-vl-7b-q4 - 3.42 for siglip-large - 15.85 for gpt-oss-20b = 28.45 GiB left on GPU 0
#   --max-num-seqs=6                     concurrency: declared 1 to 8: the largest number that fits; 72.00 usable - 12.78 at the least - 3.42 for florence-2-large - 8.09 for qwen2.5-vl-7b-q4 - 3.42 for siglip-large - 15.85 for gpt-oss-20b = 28.45 GiB left on GPU 0, context first
#   --gpu-memory-utilization=0.499       start check only: 38.93 GiB planned of 78.00, the smallest card that matches, rounded down
#   --kv-cache-memory-bytes=28993388544  bounds the KV cache exactly: 32768 tokens x 6 x 144 KiB, and 1 block of 16 that vLLM keeps = 27.00 GiB
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
  --max-num-seqs=6 \
  --gpu-memory-utilization=0.499 \
  --kv-cache-memory-bytes=28993388544 \
  '--limit-mm-per-prompt={"image":2}' \
  --enable-auto-tool-choice \
  --tool-call-parser=hermes
