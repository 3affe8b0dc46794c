#!/bin/sh
# gpt-oss-20b on generous_96gb: fits one GPU of generous_96gb
# generated from stack.yaml by imageworks compile; do not edit
# plan sha256:e7ab9bbf9f7c56804a1c9109c5a5a400aea76462a97f95c9cc51424a3799ba9d, stack.yaml:123
#
# Why these values:
#   --host=127.0.0.1                     only this machine; clients come through the proxy
#   --port=24002                         derived: one port per model id
#   --served-model-name=gpt-oss-20b      the id, by which readiness recognises the model
#   --max-model-len=65536                context: declared 16384 to 65536: all of it fits; 88.00 usable - 15.85 at the least - 3.42 for florence-2-large - 8.09 for qwen2.5-vl-7b-q4 - 47.93 for qwen3-vl-8b-fp8 - 3.42 for siglip-large = 9.29 GiB left on GPU 0
#   --max-num-seqs=2                     concurrency: defaults.concurrency
#   --gpu-memory-utilization=0.214       start check only: 20.35 GiB planned of 95.00, the smallest card that matches, rounded down
#   --kv-cache-memory-bytes=6443237376   bounds the KV cache exactly: 65536 tokens x 2 x 48 KiB, and 1 block of 16 that vLLM keeps = 6.00 GiB
#   --enable-auto-tool-choice            typed: models.gpt-oss-20b.vllm
#   --tool-call-parser=openai            typed: models.gpt-oss-20b.vllm
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
exec vllm serve "$models"/openai/gpt-oss-20b \
  --host=127.0.0.1 \
  --port=24002 \
  --served-model-name=gpt-oss-20b \
  --max-model-len=65536 \
  --max-num-seqs=2 \
  --gpu-memory-utilization=0.214 \
  --kv-cache-memory-bytes=6443237376 \
  --enable-auto-tool-choice \
  --tool-call-parser=openai
