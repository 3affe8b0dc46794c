#!/bin/sh
# gpt-oss-20b on balanced_24gb: fits one GPU of balanced_24gb
# generated from stack.yaml by imageworks compile; do not edit
# plan sha256:dcb0921577abe9c329037b405e638fb60806499298f645b5e1e673945d620780, stack.yaml:123
#
# Why these values:
#   --host=127.0.0.1                     only this machine; clients come through the proxy
#   --port=24002                         derived: one port per model id
#   --served-model-name=gpt-oss-20b      the id, by which readiness recognises the model
#   --max-model-len=39424                context: declared 16384 to 65536: the largest multiple of 256 that fits; 21.40 usable - 15.85 at the least - 3.42 for siglip-large = 2.13 GiB left on GPU 0
#   --max-num-seqs=2                     concurrency: defaults.concurrency
#   --gpu-memory-utilization=0.812       start check only: 17.96 GiB planned of 22.10, the smallest card that matches, rounded down
#   --kv-cache-memory-bytes=3876323328   bounds the KV cache exactly: 39424 tokens x 2 x 48 KiB, and 1 block of 16 that vLLM keeps = 3.61 GiB
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
  --max-model-len=39424 \
  --max-num-seqs=2 \
  --gpu-memory-utilization=0.812 \
  --kv-cache-memory-bytes=3876323328 \
  --enable-auto-tool-choice \
  --tool-call-parser=openai
