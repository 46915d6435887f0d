"""Command-line tools: ``torch-tvm``, ``torch-tvm-opt`` and the end-to-end test script."""
