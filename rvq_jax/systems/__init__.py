"""The published systems, each a short file that composes the parts below."""
