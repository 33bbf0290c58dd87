"""A trained network as an ONNX file, for programs without Python or torch."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from ae.config import PATCH
from ae.files import atomic
from ae.models import VariationalAutoencoder
from ae.run import load_run

if TYPE_CHECKING:
    from torch import Tensor

    from ae.models import Autoencoder

OPSET = 17


def export(run: Path | str, path: Path | str) -> Path:
    """Write a run's network as ONNX: input "tiles" and output "reconstruction", both (N, C, 128, 128) float32.

    A variational network reconstructs from the mean of the code. How the run segments is in the file: its metadata name
    "method", "scale", "stride" and "threshold", the score above which a pixel is a defect; its description (doc_string)
    is JSON of all options, "config", those that make a score of image and reconstruction among them, and of "contrast"
    or "level", good images' residuals where scores are normalised by them.

    Parameters
    ----------
    run : Path
        A run folder.
    path : Path
        The file, ``.onnx``.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ValueError
        If the run cannot be read.
    ImportError
        If the package `onnx` is not installed: ``pip install "fastssim[ae,onnx]"``.

    Examples
    --------
    ::

        from ae import export
        export("runs/grid", "grid.onnx")
    """
    try:
        import onnx  # noqa: PLC0415  # an extra of its own
    except ImportError:
        raise ImportError('writing ONNX needs the package onnx: pip install "fastssim[ae,onnx]"') from None
    trained = load_run(run)
    config = trained.config
    scored_by: dict[str, Any] = {"contrast": trained.contrast and asdict(trained.contrast)}
    if trained.level is not None:
        scored_by["level"] = asdict(trained.level)
    model = onnx.helper.make_model(
        _graph(onnx, trained.method.model, config.channels),
        producer_name="fastssim",
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=8,
        doc_string=json.dumps({"config": asdict(config), **scored_by}),
    )
    told = {"method": config.method, "scale": config.scale, "stride": config.stride, "threshold": trained.threshold}
    onnx.helper.set_model_props(model, {name: str(value) for name, value in told.items()})
    onnx.checker.check_model(model, full_check=True)
    path = Path(path)
    with atomic(path) as beside:
        beside.write_bytes(model.SerializeToString())
    return path


def _graph(onnx: Any, model: Autoencoder, channels: int) -> Any:
    """Write the layers one after the other."""
    nodes, weights = [], []

    def keep(name: str, tensor: Tensor) -> str:
        weights.append(onnx.numpy_helper.from_array(tensor.detach().cpu().contiguous().numpy(), name))
        return name

    layers = [*model.encoder, *model.decoder]
    code = len(model.encoder) - 1
    value = "tiles"
    for number, layer in enumerate(layers):
        result = "reconstruction" if number == len(layers) - 1 else f"value{number}"
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            weight, bias = layer.weight, layer.bias
            assert bias is not None  # noqa: S101  # every layer of ours has one
            if number == code and isinstance(model, VariationalAutoencoder):  # the mean's half
                weight, bias = weight.chunk(2)[0], bias.chunk(2)[0]
            kind = "Conv" if isinstance(layer, nn.Conv2d) else "ConvTranspose"
            padding = [int(pixels) for pixels in layer.padding] * 2
            inputs = [value, keep(f"weight{number}", weight), keep(f"bias{number}", bias)]
            options = {"kernel_shape": layer.kernel_size, "strides": layer.stride, "pads": padding}
            node = onnx.helper.make_node(kind, inputs, [result], **options)
        elif isinstance(layer, nn.LeakyReLU):
            node = onnx.helper.make_node("LeakyRelu", [value], [result], alpha=layer.negative_slope)
        else:
            node = onnx.helper.make_node("Sigmoid", [value], [result])
        nodes.append(node)
        value = result
    shape = ["N", channels, PATCH, PATCH]
    ends = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in ("tiles", "reconstruction")
    ]
    return onnx.helper.make_graph(nodes, "autoencoder", ends[:1], ends[1:], weights)
