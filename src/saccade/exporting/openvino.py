"""OpenVINO's own format, from the ONNX graph."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from saccade.core.errors import UserError
from saccade.exporting import onnx
from saccade.exporting.graph import Graph
from saccade.prediction.opening import STEM
from saccade.prediction.openvino_file import CARD


def write(graph: Graph, precision: str) -> tuple[dict[str, bytes], Sequence[str]]:
    """{"model.xml": ..., "model.bin": ...} and the dynamic axes; "fp16" keeps the weights in half precision."""
    import openvino  # here, after openvino_file has silenced its telemetry

    written, dynamic = onnx.write(graph, "fp32")
    with tempfile.TemporaryDirectory(prefix="saccade-") as folder:
        source, target = Path(folder, f"{STEM}.onnx"), Path(folder, f"{STEM}.xml")
        source.write_bytes(written[source.name])
        try:
            model = openvino.Core().read_model(source)
            model.set_rt_info(graph.card.to_ascii(), [CARD])
            for number, node in enumerate(model.get_ordered_ops()):  # by default named by a counter of the process
                node.set_friendly_name(f"{node.get_type_name()}_{number}")
            openvino.save_model(model, target, compress_to_fp16=precision == "fp16")
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1][:300]
            raise UserError(f"OpenVINO cannot convert this network: {reason}", fix="export it to onnx") from None
        del model  # it maps the source
        return {file.name: file.read_bytes() for file in (target, target.with_suffix(".bin"))}, dynamic
