"""Mathematics in PyTorch, for policies that only autograd can differentiate."""
