"""Readers of audio files and metadata.csv."""

TARGETS = {}
