"""Answers to questions about images: two towers, their join, a class for each answer.

Legend: b rows, n images of a row, m rows times images, h w pixels, g places of an
image, f features, l tokens, d joint width, a answers.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.models import presets
from mmjax.nn.attention import softmax
from mmjax.nn.dense import Dense
from mmjax.nn.norm import LayerNorm

JOINS = ("product", "concat", "attention")


class Answerer(nn.Module):
    """Logits of the answers (b, a) float32.

    The question's features are normalised: embeddings begin near 0, and a product with
    what is near 0 learns next to nothing (71 % of easy-VQA in ten epochs; so it is 98).
    Both towers' features pass through a tanh layer of `width`, then are joined: by
    their elementwise product, side by side, or by attention of the question to the
    places of the image (Yang et al. 2016, equations 15 to 18, one hop). A second tanh
    layer and a linear one follow. Of rows with several images each is joined with the
    question, and the answer follows from the maximum and the mean over them: their
    order has no part in it.

    Parameters: `image/...`, `question/...`, `image_proj`, `question_norm`,
    `question_proj`, `hidden`, `answer`, and for attention `attend_image`,
    `attend_question`, `attend_score`.
    """

    image: nn.Module
    question: nn.Module
    answers: int
    width: int = 32
    join: str = "product"

    def setup(self) -> None:
        dense = {"kernel_init": nn.initializers.xavier_uniform()}
        dense["bias_init"] = nn.initializers.zeros
        self.question_norm = LayerNorm()
        self.image_proj = Dense(self.width, **dense)
        self.question_proj = Dense(self.width, **dense)
        self.hidden = Dense(self.width, **dense)
        self.answer = Dense(self.answers, **dense)
        if self.join == "attention":
            self.attend_image = Dense(self.width, use_bias=False)
            self.attend_question = Dense(self.width)
            self.attend_score = Dense(1, use_bias=False)

    def __call__(
        self,
        images: jax.Array,
        tokens_bl: jax.Array,
        mask_bl: jax.Array,
        images_mask_bn: jax.Array | None = None,
        *,
        train: bool = False,
        axis: str | None = None,
    ) -> jax.Array:
        """Logits (b, a).

        Args:
          images: (b, h, w, 3), or (b, n, h, w, 3) of rows with several, normalised.
          images_mask_bn: which of several images there are; None: all.
        """
        several = images.ndim == 5
        count = images.shape[1] if several else 1
        folded = images.reshape(-1, *images.shape[2:]) if several else images
        asked_bf = self.question_norm(self.question(tokens_bl, mask_bl))
        question_bd = jnp.tanh(self.question_proj(asked_bf))
        joined = self._join(folded, jnp.repeat(question_bd, count, 0), train, axis)
        h_bnd = jnp.tanh(self.hidden(joined)).reshape(-1, count, self.width)
        if not several:
            return self.answer(h_bnd[:, 0])
        if images_mask_bn is None:
            images_mask_bn = jnp.ones(h_bnd.shape[:2], bool)
        seen_bn1 = images_mask_bn[..., None]
        most_bd = jnp.where(seen_bn1, h_bnd, -1.0).max(1)  # tanh is above -1
        mean_bd = (h_bnd * seen_bn1).sum(1) / jnp.maximum(seen_bn1.sum(1), 1)
        return self.answer(jnp.concatenate([most_bd, mean_bd], -1))

    def _join(
        self, images: jax.Array, question_md: jax.Array, train: bool, axis: str | None
    ) -> jax.Array:
        if self.join == "attention":
            _, map_mhwf = self.image(images, train=train, axis=axis, with_map=True)
            map_mgf = map_mhwf.reshape(len(images), -1, map_mhwf.shape[-1])
            places_mgd = jnp.tanh(self.image_proj(map_mgf.astype(jnp.float32)))
            asked_m1d = self.attend_question(question_md)[:, None]
            score_mg1 = self.attend_score(
                jnp.tanh(self.attend_image(places_mgd) + asked_m1d)
            )
            share_mg = softmax(score_mg1[..., 0], None, "float32")
            return (share_mg[..., None] * places_mgd).sum(1) + question_md
        image_mf = self.image(images, train=train, axis=axis)
        image_md = jnp.tanh(self.image_proj(image_mf.astype(jnp.float32)))
        if self.join == "product":
            return image_md * question_md
        return jnp.concatenate([image_md, question_md], -1)


def build(
    image: Mapping[str, Any],
    question: Mapping[str, Any],
    *,
    answers: int,
    image_size: int,
    vocab_size: int,
    context: int,
    width: int = 32,
    join: str = "product",
) -> Answerer:
    """The network whose towers are mappings of `kind` and the kind's own fields.

    Args:
      image: `kind` is one of `presets.IMAGE_KINDS`.
      question: `kind` is one of `presets.TEXT_KINDS`.

    Raises:
      UserError: an unknown kind or field.
    """
    eyes = presets.image_tower(image, image_size=image_size)
    words = presets.text_tower(question, vocab_size=vocab_size, context=context)
    return Answerer(eyes, words, answers, width, join)
