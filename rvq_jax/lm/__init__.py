"""Token language models: a transformer over interleaved codes, its conditioner, its decoding.

A *code* is an entry of a codebook, `[B, K, F]`: K levels (codebooks) of F frames. A pattern puts
codes into T *steps*; what stands at a step is a *token*, `[B, K, T]`: a code, or the *special id* N
where a level has none, and before the first step. To a masked token model, which has no steps, id N
is what stands for a code that is not known yet. *Bits* are -log2 of a probability.

Letters: B batch, K levels, F frames, T steps, N codes of a codebook, D features of the model,
H attention heads, E features of a head or of a condition, L length of a condition, P length of a
prefix, G branches of guidance.
"""
