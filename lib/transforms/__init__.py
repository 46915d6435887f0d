"""Relax-to-Relax: simplification, layout, weight packing and fusion.

``pipeline.py`` lists the passes in order.
"""
