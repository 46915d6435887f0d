"""Programs for OpenCL devices: kernels as OpenCL C, what the host does as Python."""
