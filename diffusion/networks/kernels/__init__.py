"""Kernels for the networks on a CPU, in float32. One file each: the operator, its plain twin in torch's operations, and
the function that chooses between them."""
