"""Tiny random text models: a Llama with a SentencePiece tokenizer, a BERT, and both as GGUF."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import gguf
import torch

if TYPE_CHECKING:
    import numpy as np

HEADS: Final = 4
KV_HEADS: Final = 2
LAYERS: Final = 2
WIDTH: Final = 64
FFN: Final = 96
VOCABULARY: Final = 320
CONTEXT: Final = 1024
POSITIONS: Final = 64
"""Of the BERT."""
WORDS: Final = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "quick", "fox", "jump", "##s", "##ed")
TEXT: Final = (
    "the quick brown fox jumps over the lazy dog while seven wizards mix a potion of old toad\n"
    "every board has a memory and a clock and a story that nobody told the compiler about\n"
    "numbers are measured on quiet afternoons when the machine has nothing better to do\n"
)


def write_llama(directory: Path) -> Path:
    """A Hugging Face directory in bfloat16, its head not tied."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=WIDTH,
        intermediate_size=FFN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        vocab_size=VOCABULARY,
        max_position_embeddings=CONTEXT,
        initializer_range=0.2,  # so that one token stands out
    )
    LlamaForCausalLM(config).bfloat16().save_pretrained(directory)
    train_tokenizer(directory)
    return directory


def train_tokenizer(directory: Path) -> None:
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT.splitlines()),
        model_writer=model,
        vocab_size=VOCABULARY,
        model_type="bpe",
        byte_fallback=True,
        minloglevel=2,
    )
    (directory / "tokenizer.model").write_bytes(model.getvalue())
    settings = {
        "tokenizer_class": "LlamaTokenizer",
        "add_bos_token": True,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "legacy": False,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))


def write_llama_gguf(directory: Path, file: Path) -> Path:
    """The model of `write_llama` with every weight in float32."""
    import sentencepiece

    writer = gguf.GGUFWriter(file, "llama")
    writer.add_block_count(LAYERS)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_rope_freq_base(10000.0)
    tokens = sentencepiece.SentencePieceProcessor(model_file=str(directory / "tokenizer.model"))
    count = tokens.vocab_size()
    kinds = [
        2 if tokens.is_unknown(i) else 3 if tokens.is_control(i) else 6 if tokens.is_byte(i) else 1
        for i in range(count)
    ]
    writer.add_tokenizer_model("llama")
    writer.add_token_list([tokens.id_to_piece(i).encode() for i in range(count)])
    writer.add_token_scores([tokens.get_score(i) for i in range(count)])
    writer.add_token_types(kinds)
    writer.add_bos_token_id(tokens.bos_id())
    writer.add_eos_token_id(tokens.eos_id())
    writer.add_unk_token_id(tokens.unk_id())
    writer.add_add_bos_token(True)
    for name, values in read_weights(directory).items():
        heads = {"q_proj": HEADS, "k_proj": KV_HEADS}.get(name.split(".")[-2])
        if heads is not None:  # halves of each head interleaved
            values = values.reshape(heads, 2, -1, WIDTH).swapaxes(1, 2).reshape(values.shape)
        writer.add_tensor(gguf_name(gguf.MODEL_ARCH.LLAMA, name), values)
    return finished(writer, file)


def write_bert(directory: Path) -> Path:
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=WIDTH,
        intermediate_size=FFN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        vocab_size=len(WORDS),
        max_position_embeddings=POSITIONS,
        initializer_range=0.2,
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(directory)
    return directory


def write_bert_gguf(directory: Path, file: Path) -> Path:
    """The model of `write_bert` in float32, pooled by the mean."""
    writer = gguf.GGUFWriter(file, "bert")
    writer.add_block_count(LAYERS)
    writer.add_context_length(POSITIONS)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_tokenizer_model("bert")
    pieces = [w if w[0] == "[" else w[2:] if w.startswith("##") else f"▁{w}" for w in WORDS]
    writer.add_token_list([piece.encode() for piece in pieces])
    writer.add_token_types([3 if word[0] == "[" else 1 for word in WORDS])
    writer.add_token_type_count(2)
    writer.add_bos_token_id(WORDS.index("[CLS]"))
    writer.add_sep_token_id(WORDS.index("[SEP]"))
    writer.add_unk_token_id(WORDS.index("[UNK]"))
    writer.add_pad_token_id(WORDS.index("[PAD]"))
    for name, values in read_weights(directory).items():
        writer.add_tensor(gguf_name(gguf.MODEL_ARCH.BERT, name), values)
    return finished(writer, file)


def read_weights(directory: Path) -> dict[str, np.ndarray]:
    from safetensors.torch import load_file

    tensors: Mapping[str, Any] = load_file(directory / "model.safetensors")
    return {name: tensor.float().numpy() for name, tensor in tensors.items()}


def gguf_name(architecture: gguf.MODEL_ARCH, name: str) -> str:
    found = gguf.get_tensor_name_map(architecture, LAYERS).get_name(
        name, try_suffixes=(".weight", ".bias")
    )
    assert found is not None, name
    return found


def finished(writer: gguf.GGUFWriter, file: Path) -> Path:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file
