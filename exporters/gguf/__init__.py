"""GGUF for llama.cpp: a Hugging Face directory becomes one quantized file in one pass."""
