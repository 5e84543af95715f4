"""Training the model of semantic tokens, from which SoundStorm makes a codec's."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

from jax.sharding import Mesh

from rvq_jax.data.codes import CodeSet
from rvq_jax.errors import UserError
from rvq_jax.lm.model import LMConfig
from rvq_jax.systems.semantic import PATTERN, TOKENIZER, SemanticModel
from rvq_jax.systems.semantic_tokenizer import SemanticTokenizer
from rvq_jax.systems.spelling import Spelling
from rvq_jax.systems.text_encoder import TextEncoder
from rvq_jax.train.monitoring import NOTHING, Monitoring
from rvq_jax.train.runs.lm import LMRun, heldout_beside
from rvq_jax.train.runs.musicgen import train_musicgen
from rvq_jax.train.runs.sizes import sized_as_codes
from rvq_jax.train.utterances import utterances


@dataclass(frozen=True)
class SemanticRun(LMRun):
    """Training a token model on random crops of the semantic tokens beside codes.

    Records shorter than a crop teach it where clips end. Of speech it is trained on whole
    utterances, whose captions are the words that are said.
    """

    pattern: str = PATTERN  # of one level: its codes in order
    speech: bool = False  # captions are the words that are said
    phonemes: str | None = None  # espeak-ng's name of a language; None: words are letters
    lm: LMConfig = field(default_factory=lambda: LMConfig(levels=1, codebook_size=512, end=True))

    def train(
        self,
        folder: Path,
        data: Path,
        mesh: Mesh,
        *,
        codec: Path | None = None,
        text: Path | None = None,
        monitoring: Monitoring = NOTHING,
    ) -> SemanticModel:
        """As of `Run`; data: a code cache with semantic tokens, heldout.npz beside it is held out.

        Raises UserError also for a codec, of which there are no codes.
        """
        if codec is not None:
            raise UserError("semantic tokens are of no codec: leave --codec out")
        if self.lm.levels != 1 or not self.lm.end:
            raise UserError("a semantic model has one level and an end: set lm.levels 1, lm.end")
        if self.phonemes is not None and not self.speech:
            raise UserError("phonemes are of speech: set speech True, or leave them out")
        if self.speech and self.lm.text_dim:
            raise UserError("words are read without a frozen text encoder: set no lm.text-dim")
        if self.init_from is not None:
            raise UserError("a semantic model begins with random weights: leave --init-from out")
        encoder = None if text is None else TextEncoder.load(text)
        tokens = semantic_set(CodeSet.load(data))
        heldout = None if self.loop.evaluate_every == 0 else heldout_beside(data)
        heldout = None if heldout is None else semantic_set(heldout)
        spelling = Spelling(self.phonemes) if self.speech else None
        if spelling is not None:
            reads = self.frames, spelling, self.lm.caption_bytes
            tokens = utterances(tokens, *reads)
            heldout = None if heldout is None else utterances(heldout, *reads, "heldout")
            spelling = spelling.trained_on(tokens.captions)
        options = {"heldout": heldout, "monitoring": monitoring}
        run = dataclasses.replace(self, lm=sized_as_codes(self.lm, tokens))
        model = train_musicgen(folder, tokens, run, mesh, None, encoder, **options)
        # It is asked for no more than it was trained on.
        lm = dataclasses.replace(model.config, window=self.frames)
        path = Path(data).with_name(TOKENIZER)
        tokenizer = SemanticTokenizer.load(path) if path.exists() else None
        model = dataclasses.replace(model, config=lm)
        return SemanticModel(model, tokens.frame_rate, tokenizer, spelling)


def semantic_set(codes: CodeSet) -> CodeSet:
    """The semantic tokens of a code cache as codes of one level; UserError if it has none."""
    if codes.semantics is None:
        raise UserError(
            "the codes have no semantic tokens: build them with --semantic kmeans in a new --out"
        )
    return CodeSet(
        [tokens[None] for tokens in codes.semantics],
        codes.names,
        codes.captions,
        codes.labels,
        codes.frame_rate / codes.semantic_ratio,
        codes.semantic_size,
    )
