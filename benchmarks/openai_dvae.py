"""OpenAI's dVAE in torch, after openai/DALL-E (dall_e/encoder.py, dall_e/decoder.py).

The released code holds the networks; the training loss is the paper's (Ramesh et al.
2021, appendix A). Pictures are float32 (b, 3, h, w) in [0, 1]; codes (b, v, g, g).
"""

import math
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

EPS = 0.1


def conv(n_in: int, n_out: int, size: int) -> nn.Conv2d:
    """Weights N(0, 1 / (n_in size^2)), biases 0."""
    made = nn.Conv2d(n_in, n_out, size, padding=(size - 1) // 2)
    nn.init.normal_(made.weight, std=1 / math.sqrt(n_in * size**2))
    nn.init.zeros_(made.bias)
    return made


class Block(nn.Module):
    """A residual block; `sizes` are those of the kernels, from input to output."""

    def __init__(self, n_in: int, n_out: int, n_layers: int, sizes: tuple[int, ...]):
        super().__init__()
        self.post_gain = 1 / n_layers**2
        hid = n_out // 4
        self.skip = conv(n_in, n_out, 1) if n_in != n_out else nn.Identity()
        self.conv_1 = conv(n_in, hid, sizes[0])
        self.conv_2 = conv(hid, hid, sizes[1])
        self.conv_3 = conv(hid, hid, sizes[2])
        self.conv_4 = conv(hid, n_out, sizes[3])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x
        for layer in (self.conv_1, self.conv_2, self.conv_3, self.conv_4):
            y = layer(F.relu(y))
        return self.skip(x) + self.post_gain * y


class Encoder(nn.Module):
    def __init__(self, vocab: int, n_hid: int, groups: int, blocks: int):
        super().__init__()
        self.groups, self.blocks = groups, blocks
        self.conv_in = conv(3, n_hid, 7)
        width = n_hid
        for group in range(1, groups + 1):
            out = n_hid * 2 ** (group - 1)
            for block in range(1, blocks + 1):
                made = Block(width, out, groups * blocks, (3, 3, 3, 1))
                self.add_module(f"group_{group}_block_{block}", made)
                width = out
        self.out = conv(width, vocab, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv_in(x)
        for group in range(1, self.groups + 1):
            for block in range(1, self.blocks + 1):
                x = self.get_submodule(f"group_{group}_block_{block}")(x)
            if group < self.groups:
                x = F.max_pool2d(x, 2)
        return self.out(F.relu(x))


class Decoder(nn.Module):
    def __init__(self, vocab: int, n_init: int, n_hid: int, groups: int, blocks: int):
        super().__init__()
        self.groups, self.blocks = groups, blocks
        self.conv_in = conv(vocab, n_init, 1)
        width = n_init
        for group in range(1, groups + 1):
            out = n_hid * 2 ** (groups - group)
            for block in range(1, blocks + 1):
                made = Block(width, out, groups * blocks, (1, 3, 3, 3))
                self.add_module(f"group_{group}_block_{block}", made)
                width = out
        self.out = conv(width, 6, 1)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        x = self.conv_in(z)
        for group in range(1, self.groups + 1):
            for block in range(1, self.blocks + 1):
                x = self.get_submodule(f"group_{group}_block_{block}")(x)
            if group < self.groups:
                x = F.interpolate(x, scale_factor=2, mode="nearest")
        return self.out(F.relu(x))


class DVae(nn.Module):
    def __init__(
        self,
        vocab_size: int,
        hidden: int = 256,
        groups: int = 4,
        blocks_per_group: int = 2,
        init_width: int = 128,
    ):
        super().__init__()
        sizes = (hidden, groups, blocks_per_group)
        self.encoder = Encoder(vocab_size, *sizes)
        self.decoder = Decoder(vocab_size, init_width, *sizes)

    def loss(
        self,
        x: torch.Tensor,
        temperature: float,
        kl_weight: float,
        noise: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The training loss, and {nll, kl} per picture, {logits, mean}."""
        mapped = x * (1 - 2 * EPS) + EPS
        logits = self.encoder(mapped)
        if noise is None:
            noise = -torch.empty_like(logits).exponential_().log()
        soft = F.softmax((logits + noise) / temperature, dim=1)
        mean, log_scale = self.decoder(soft).chunk(2, dim=1)
        away = (torch.logit(mapped) - mean).abs() / log_scale.exp()
        nll = (math.log(2) + log_scale + (mapped * (1 - mapped)).log() + away).sum(
            (1, 2, 3)
        )
        log_q = F.log_softmax(logits, dim=1)
        kl = (log_q.exp() * (log_q + math.log(logits.shape[1]))).sum((1, 2, 3))
        loss = (nll + kl_weight * kl).mean() / x[0].numel()
        return loss, {"nll": nll, "kl": kl, "logits": logits, "mean": mean}


def load_mmjax(model: DVae, params: Mapping) -> None:
    """Puts the parameters of `mmjax.models.dvae.DVae` into the model, in place."""
    state = {}

    def walk(tree: Mapping, path: str) -> None:
        for name, value in tree.items():
            if isinstance(value, Mapping):
                walk(value, f"{path}{name}.")
                continue
            array = np.asarray(value)
            if name == "kernel":
                array = array[None, None] if array.ndim == 2 else array
                state[f"{path}weight"] = torch.tensor(array.transpose(3, 2, 0, 1))
            else:
                state[f"{path}{name}"] = torch.tensor(array)

    walk(params, "")
    model.load_state_dict(state)
