"""Layers of a stock Keras model computed by fused native code."""
