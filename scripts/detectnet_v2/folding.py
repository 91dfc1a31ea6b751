"""Batch norms folded into the convolutions before them, for networks that no longer learn."""

import torch

from detectnet_v2.model import DetectNetV2


def fold_batch_norms(model: DetectNetV2) -> DetectNetV2:
    """Build the network without batch norms that computes what `model` does in evaluation mode.

    Args:
        model: unchanged; its batch norms count with their moving averages.

    Returns:
        A network in evaluation mode on the CPU, whose convolutions carry the names they had.
    """
    architecture = model.architecture
    folded = DetectNetV2(
        architecture.num_layers,
        architecture.num_classes,
        widths=model.widths,
        use_pooling=architecture.use_pooling,
        all_projections=architecture.all_projections,
        use_batch_norm=False,
        input_height=model.input_height,
        input_width=model.input_width,
        class_names=model.class_names,
    )
    norms = {
        layer.inputs[0]: model.get_submodule(layer.name)
        for layer in model.layers
        if layer.kind == "batch_norm"
    }
    with torch.no_grad():
        for name, target in folded.named_children():
            source = model.get_submodule(name)
            kernel, bias = source.weight.double(), source.bias.double()
            if name in norms:
                norm = norms[name]
                scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
                kernel = kernel * scale[:, None, None, None]
                bias = (bias - norm.running_mean.double()) * scale + norm.bias.double()
            target.weight.copy_(kernel)
            target.bias.copy_(bias)
    return folded.eval()
