#!/bin/sh
# gpt-oss-20b on multi_gpu_2x16gb: weights above 11.7GiB are split over all 2 GPUs
# generated from stack.yaml by imageworks compile; do not edit
# plan sha256:4ffb4f5d371047688e90e4e074d04a01af5e6ffd65ed582858f271c3dd649dd6, stack.yaml:123
#
# Why these values:
#   --host=127.0.0.1                     only this machine; clients come through the proxy
#   --port=24002                         derived: one port per model id
#   --served-model-name=gpt-oss-20b      the id, by which readiness recognises the model
#   --max-model-len=51200                context: declared 16384 to 65536: the largest multiple of 256 that fits; 13.70 usable - 8.68 at the least - 3.42 for siglip-large = 1.60 GiB left on GPU 0
#   --max-num-seqs=2                     concurrency: defaults.concurrency
#   --gpu-memory-utilization=0.689       start check only: 10.27 GiB planned of 14.90, the smallest card that matches, rounded down
#   --kv-cache-memory-bytes=2516975616   bounds the KV cache exactly: 51200 tokens x 2 x 48 KiB, and 1 block of 16 that vLLM keeps = 4.69 GiB, on each of 2 GPUs
#   --tensor-parallel-size=2             weights above 11.7GiB are split over all 2 GPUs
#   --enable-auto-tool-choice            typed: models.gpt-oss-20b.vllm
#   --tool-call-parser=openai            typed: models.gpt-oss-20b.vllm
set -eu
stack=$(CDPATH='' cd -- "$(dirname -- "$0")/../../.." && pwd)
cd -- "$stack"
models=${IMAGEWORKS_MODELS:-models}
case $models in /*) ;; *) models=$stack/$models ;; esac
export CUDA_DEVICE_ORDER=PCI_BUS_ID
export CUDA_VISIBLE_DEVICES="${CUDA_VISIBLE_DEVICES:-0,1}"
export DO_NOT_TRACK=1
export HF_HUB_OFFLINE=1
export VLLM_NO_USAGE_STATS=1
exec vllm serve "$models"/openai/gpt-oss-20b \
  --host=127.0.0.1 \
  --port=24002 \
  --served-model-name=gpt-oss-20b \
  --max-model-len=51200 \
  --max-num-seqs=2 \
  --gpu-memory-utilization=0.689 \
  --kv-cache-memory-bytes=2516975616 \
  --tensor-parallel-size=2 \
  --enable-auto-tool-choice \
  --tool-call-parser=openai
