"""The fields of transformers' config files: which are known, and which may be passed over."""

import difflib

from rvq_jax import config as configs
from rvq_jax import limits
from rvq_jax.errors import UserError, shown

# What every transformers config may hold: nothing about the model's sizes. The second group stands
# in files of older versions, which wrote the settings of text generation into every model's.
GENERAL = frozenset(
    """
    _attn_implementation _attn_implementation_autoset _attn_implementation_internal _commit_hash
    _experts_implementation _experts_implementation_internal _name_or_path _output_attentions
    architectures attn_implementation auto_map chunk_size_feed_forward dtype finetuning_task
    gradient_checkpointing id2label is_encoder_decoder label2id model_type
    name_or_path output_attentions output_hidden_states problem_type return_dict
    torch_dtype torchscript transformers_version transformers_weights use_cache use_return_dict

    add_cross_attention bad_words_ids begin_suppress_tokens bos_token_id cross_attention_hidden_size
    decoder_start_token_id diversity_penalty do_sample early_stopping encoder_no_repeat_ngram_size
    eos_token_id exponential_decay_length_penalty forced_bos_token_id forced_eos_token_id is_decoder
    length_penalty max_length min_length no_repeat_ngram_size num_beam_groups num_beams
    num_return_sequences output_scores pad_token_id prefix pruned_heads remove_invalid_values
    repetition_penalty return_dict_in_generate sep_token_id suppress_tokens task_specific_params
    temperature tf_legacy_loss tie_encoder_decoder tie_word_embeddings tokenizer_class top_k top_p
    typical_p use_bfloat16
    """.split()
)


def checked(fields: dict, cls: type, where: str, ignored: tuple[str, ...] = ()):
    """The fields of a config that say something about the model, over their defaults.

    Args:
      fields: the config as its file has it.
      cls: a dataclass of the fields that say something about the model, with their defaults.
      where: name of the file, or of a part of it, for error messages.
      ignored: names of fields of this model that are about training it, or running it elsewhere.

    Returns:
      One of `cls`. Fields that say nothing about the model are left out.

    Raises:
      UserError: when a field is unknown, of another type, or out of bounds (`rvq_jax.limits`).
    """
    known, kinds = {}, limits.kinds(cls)
    for name, value in fields.items():
        if name in kinds:
            known[name] = value
        elif name not in GENERAL and name not in ignored:
            near = difflib.get_close_matches(name[:80], kinds, n=1)
            hint = f", did you mean {near[0]!r}?" if near else ";"
            raise UserError(
                f"{where}: unknown field {shown(name)}{hint} it could change the model, so it is "
                "refused; remove it if it does not"
            )
    return configs.from_dict(cls, known, where)


def without_place(rows: list[tuple[str, object, bool, str]]) -> str | None:
    """The first field of a config of ours that a format of another project has no place for.

    Args:
      rows: of each field that may be beyond it: the name, the value, whether the format has the
        value, and the values that it has, in words.

    Returns:
      A clause that names the field; None if the format has all of them.
    """
    for name, value, fits, supported in rows:
        if not fits:
            return f"transformers' format has no {name} {shown(value)}, only {supported}"
    return None


def is_power_of_two(number: int) -> bool:
    """As transformers wants the codes of a codebook to be."""
    return number & (number - 1) == 0


def kind_of(fields: dict) -> str:
    """The model_type of a config; '' if it has none that is text."""
    kind = fields.get("model_type")
    return kind if isinstance(kind, str) else ""


def refuse(where: str, name: str, value, supported: str) -> None:
    """Refuses a value of a known field that this library has no layer for.

    Args:
      where: name of the file, or of a part of it, for error messages.
      name: name of the field.
      value: value of the field.
      supported: the values that are supported, in words.

    Raises:
      UserError: always.
    """
    raise UserError(f"{where}: {name} {shown(value)} is not supported, only {supported}")
