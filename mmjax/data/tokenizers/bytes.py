"""A tokenizer of bytes, which needs no training."""

from collections.abc import Sequence

from mmjax.data.tokenizers.base import Tokenizer


class ByteTokenizer(Tokenizer):
    """UTF-8 bytes: id 0 pads, byte b is id b + 1, SOT is 257 and EOT 258."""

    VOCAB = 1 + 256 + 2

    def __init__(self, *, context: int, lower: bool):
        super().__init__("bytes", vocab_size=self.VOCAB, context=context, lower=lower)

    def _ids(self, text: str) -> list[int]:
        return [b + 1 for b in text.encode("utf-8")]

    def _spell(self, ids: Sequence[int]) -> bytes:
        return bytes(i - 1 for i in ids if i)
