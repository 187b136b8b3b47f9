#!/usr/bin/env bash
# PyTorch 2.13.0 on CPU: `torch.compile` with `freezing` makes 0 of a NaN behind a convolution with ReLU.
#
# A good guess: compiled in evaluation, a network gives what it gives eagerly, up to rounding; a NaN in an image gives
# NaN, as `torch.relu` keeps it.
#
# What happens: with `torch._inductor.config.freezing`, which the guides advise for inference on CPU, a convolution
# and the ReLU behind it become one call of oneDNN, whose ReLU takes the larger of 0 and the value in an order that
# drops NaN. The positions that the NaN reaches are 0, and a network gives plausible logits for an image with NaN.
#
# Output seen (number of NaN among 2,048):
#   eager: 640
#   frozen: 0
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"${PYTHON:-python3}" -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 setuptools
"$scratch/venv/bin/python" - <<'PYTHON'
import torch
import torch._inductor.config

torch._inductor.config.freezing = True
torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU()).eval()
x = torch.randn(1, 3, 16, 16)
x[0, 0, 4:12, 4:10] = float("nan")
with torch.no_grad():
    eager, frozen = net(x), torch.compile(net)(x)
counts = [int(torch.isnan(y).sum()) for y in (eager, frozen)]
print("eager:", counts[0])
print("frozen:", counts[1])
assert counts[0] > 0 and counts[1] == 0
PYTHON
