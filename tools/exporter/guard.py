"""The guard: what a model must show in onnxruntime, against torch, before its file gets its final name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from agent.contract import CHANNELS, INPUT_NAME, OUTPUT_NAME, check_model
from agent.errors import Reject
from tools.exporter.errors import ExportError
from tools.exporter.session import BATCHES, describe, open_session

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnxruntime

    from agent.contract import ModelFacts
    from tools.exporter.graph import Array

EXACT = 1e-5  # largest difference of any pixel between an fp32 model and torch


def check_contract(model: bytes) -> tuple[onnxruntime.InferenceSession, ModelFacts]:
    """Load the model and check names, axes, dtypes, shapes, metadata; ExportError names what is wrong."""
    session = open_session(model)
    try:
        return session, check_model(describe(session))
    except Reject as refused:
        raise ExportError(
            f"The exported graph breaks the contract ({refused.detail}): report this as a fault."
        ) from refused


def check_batches(
    session: onnxruntime.InferenceSession, fed: Sequence[Array], heatmaps: Sequence[Array], tolerance: float
) -> None:
    """Run batches of 1, 2 and 4 strips: each must give its own heatmap again, channels 1 and 2 of the output are 0."""
    for batch in BATCHES:
        chosen = [index % len(fed) for index in range(batch)]
        together: Array = session.run([OUTPUT_NAME], {INPUT_NAME: np.stack([fed[index] for index in chosen])})[0]
        if together.shape != (batch, CHANNELS, *fed[0].shape[1:]):
            raise ExportError(f"A batch of {batch} gives an output of {together.shape}: report this as a fault.")
        if together[:, 1:].any():
            raise ExportError("Channels 1 and 2 of the output are not zero: report this as a fault.")
        for place, index in enumerate(chosen):
            difference = float(np.abs(heatmaps[index] - together[place, 0]).max())
            if not difference <= tolerance:
                raise ExportError(
                    f"Strip {place} of a batch of {batch} differs by {difference:.2g} from itself alone: "
                    "the network mixes the strips of a batch, export it in evaluation mode."
                )
