"""Readers of what a run keeps: metrics.jsonl, checkpoints."""

TARGETS = {}
