"""torch_tvm"""
