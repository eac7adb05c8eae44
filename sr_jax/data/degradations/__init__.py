"""Degradations: LR images that were blurred, resized, noised and compressed, made on the device."""
