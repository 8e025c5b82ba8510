"""One thread per test process: the tensors are small, and other processes may be at work on the same cores."""

import torch

torch.set_num_threads(1)
