"""One file per way of training: plain PyTorch, no Ray."""
