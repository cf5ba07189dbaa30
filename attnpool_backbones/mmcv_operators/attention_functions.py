"""mmcv's functions of attention and upsampling, in plain torch."""

from torch import Tensor

from attnpool_backbones.mmcv_operators.served import serve
from attnpool_backbones.ops import carafe, deform_attention, psa_mask


@serve
def ms_deform_attn_forward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """Returns what the queries see."""
    return deform_attention.attend(
        value,
        value_spatial_shapes,
        value_level_start_index,
        sampling_locations,
        attention_weights,
    )


@serve
def ms_deform_attn_backward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int,
) -> None:
    """Writes the last three tensors."""
    found = deform_attention.attend_backward(
        grad_output,
        value,
        value_spatial_shapes,
        value_level_start_index,
        sampling_locations,
        attention_weights,
    )
    results = grad_value, grad_sampling_loc, grad_attn_weight
    for result, gradient in zip(results, found, strict=True):
        result.copy_(gradient)


@serve
def carafe_forward(
    features: Tensor,
    masks: Tensor,
    rfeatures: Tensor,
    routput: Tensor,
    rmasks: Tensor,
    output: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Writes ``output``, and into ``rfeatures`` what mmcv's backward pass hands on."""
    rfeatures.copy_(features)
    output.copy_(carafe.reassemble(features, masks, kernel_size, group_size, scale_factor))


@serve
def carafe_backward(
    top_grad: Tensor,
    rfeatures: Tensor,
    masks: Tensor,
    rtop_grad: Tensor,
    rbottom_grad_hs: Tensor,
    rbottom_grad: Tensor,
    rmask_grad: Tensor,
    bottom_grad: Tensor,
    mask_grad: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Writes ``bottom_grad`` and ``mask_grad``."""
    sizes = kernel_size, group_size, scale_factor
    for_features, for_masks = carafe.reassemble_backward(top_grad, rfeatures, masks, *sizes)
    bottom_grad.copy_(for_features)
    mask_grad.copy_(for_masks)


@serve
def carafe_naive_forward(
    features: Tensor,
    masks: Tensor,
    output: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Writes ``output``."""
    output.copy_(carafe.reassemble(features, masks, kernel_size, group_size, scale_factor))


@serve
def carafe_naive_backward(
    top_grad: Tensor,
    features: Tensor,
    masks: Tensor,
    bottom_grad: Tensor,
    mask_grad: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Writes ``bottom_grad`` and ``mask_grad``."""
    sizes = kernel_size, group_size, scale_factor
    for_features, for_masks = carafe.reassemble_backward(top_grad, features, masks, *sizes)
    bottom_grad.copy_(for_features)
    mask_grad.copy_(for_masks)


@serve
def psamask_forward(
    input: Tensor,
    output: Tensor,
    psa_type: int,
    num_: int,
    h_feature: int,
    w_feature: int,
    h_mask: int,
    w_mask: int,
    half_h_mask: int,
    half_w_mask: int,
) -> None:
    """Writes ``output``."""
    output.copy_(psa_mask.psa_mask(input, psa_mask.PSA_TYPES[psa_type], (h_mask, w_mask)))


@serve
def psamask_backward(
    grad_output: Tensor,
    grad_input: Tensor,
    psa_type: int,
    num_: int,
    h_feature: int,
    w_feature: int,
    h_mask: int,
    w_mask: int,
    half_h_mask: int,
    half_w_mask: int,
) -> None:
    """Writes ``grad_input``."""
    name = psa_mask.PSA_TYPES[psa_type]
    grad_input.copy_(psa_mask.psa_mask_backward(grad_output, name, (h_mask, w_mask)))
