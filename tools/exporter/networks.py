"""The two families of networks (layer 1), written in torch: (B, channels, h, w) -> (B, 2, h, w) logits.

Attribute names are those of the checkpoints' keys. The second family differs by an SPPF block behind the encoder,
squeeze-and-excitation in the decoder, and one convolution less per decoder stage.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterable

STAGES = ("_b", "1", "2", "3", "4")  # decoder stages, deepest first
STAGE_WIDTHS = (8, 4, 2, 1, 1)  # channels of their results, in widths
ENCODER_LEVELS = (1, 2, 4, 8, 8, 8)  # channels of the six blocks, in widths


def _conv_norm_relu(channels_in: int, channels_out: int, kernel: int = 3) -> list[nn.Module]:
    return [
        nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
    ]


class _Sppf(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(*_conv_norm_relu(channels, channels // 2, 1))
        self.conv2 = nn.Sequential(*_conv_norm_relu(channels * 2, channels, 1))
        self.pool = nn.MaxPool2d(5, stride=1, padding=2)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        pooled = [self.conv1(features)]
        for _ in range(3):
            pooled.append(self.pool(pooled[-1]))
        return self.conv2(torch.cat(pooled, 1))  # type: ignore[no-any-return]  # torch's modules return Any


class _SqueezeExcitation(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = channels // 16
        self.fc = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels), nn.Sigmoid())

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        weights: torch.Tensor = self.fc(features.mean((2, 3)))
        return features * weights[:, :, None, None]


class _Encoder(nn.Module):
    def __init__(self, inputs: int, width: int, *, sppf: bool) -> None:
        super().__init__()
        channels_in = inputs
        for number, widths in enumerate(ENCODER_LEVELS, 1):
            channels = widths * width
            block = [*_conv_norm_relu(channels_in, channels), *_conv_norm_relu(channels, channels)]
            setattr(self, f"block{number}", nn.Sequential(*block))
            channels_in = channels
        if sppf:
            self.sppf = _Sppf(channels_in)

    def forward(self, patches: torch.Tensor) -> list[torch.Tensor]:
        levels: list[torch.Tensor] = []
        features = patches
        for number in range(1, 7):
            if levels:
                features = nn.functional.max_pool2d(features, 2)
            features = getattr(self, f"block{number}")(features)
            levels.append(features)
        if hasattr(self, "sppf"):
            levels[-1] = self.sppf(levels[-1])
        return levels


class _Decoder(nn.Module):
    def __init__(self, width: int, *, squeeze: bool) -> None:
        super().__init__()
        below = ENCODER_LEVELS[-1] * width
        for stage, skip_widths, out_widths in zip(STAGES, reversed(ENCODER_LEVELS[:-1]), STAGE_WIDTHS, strict=True):
            out, joined = out_widths * width, (out_widths + skip_widths) * width
            upsample = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
            setattr(self, f"up{stage}", nn.Sequential(upsample, *_conv_norm_relu(below, out)))
            body = _conv_norm_relu(joined, out)
            if squeeze:
                setattr(self, f"se{stage}", _SqueezeExcitation(joined))
            else:
                body += _conv_norm_relu(out, out)
            setattr(self, f"db{stage}", nn.Sequential(*body))
            below = out
        last = nn.Conv2d(width, 2, 3, padding=1)
        self.fin_out: nn.Module = last if squeeze else nn.Sequential(last)

    def forward(self, levels: list[torch.Tensor]) -> torch.Tensor:
        features = levels[-1]
        for stage, skip in zip(STAGES, reversed(levels[:-1]), strict=True):
            features = torch.cat([getattr(self, f"up{stage}")(features), skip], 1)
            if hasattr(self, f"se{stage}"):
                features = getattr(self, f"se{stage}")(features)
            features = getattr(self, f"db{stage}")(features)
        return self.fin_out(features)  # type: ignore[no-any-return]  # torch's modules return Any


class UNet(nn.Module):
    """Either family; `squeeze` chooses the second. `inputs` is the number of channels that it takes."""

    def __init__(self, width: int = 64, *, squeeze: bool = False, inputs: int = 3) -> None:
        super().__init__()
        self.inputs = inputs
        self.encoder = _Encoder(inputs, width, sppf=squeeze)
        self.decoder = _Decoder(width, squeeze=squeeze)

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """(B, inputs, h, w) -> (B, 2, h, w) logits of background and defect; h and w are multiples of 32."""
        return self.decoder(self.encoder(patches))  # type: ignore[no-any-return]  # torch's modules return Any


def is_second_family(keys: Iterable[str]) -> bool:
    """Tell the families apart by the keys of their weights."""
    return any(key.startswith("encoder.sppf.") for key in keys)
