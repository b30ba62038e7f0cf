"""Kernels for the networks on a CPU, in float32. Each file has the operator, its reference implementation `plain` in
torch operations, and the function that chooses between them."""
