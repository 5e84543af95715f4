"""Audio folder → TFDS builder on ArrayRecord → grain loader; the built-in corpus."""
