"""Records, sources, image operations, tokenizers and the batch pipeline."""
