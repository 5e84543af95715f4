"""Readers of files of other projects and of our own: torch, safetensors, .dac, .ecdc, .rvq, npz."""

TARGETS = {}
