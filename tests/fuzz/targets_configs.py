"""Readers of config.json of every model, and tokenizers."""

TARGETS = {}
