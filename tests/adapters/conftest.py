"""One thread: the models are tiny, and other work may share the machine."""

from __future__ import annotations

import torch

torch.set_num_threads(1)
