"""ATen operators by what they mean to a workload; names without ``torch.ops.aten.`` and overload."""

from __future__ import annotations

import re

ACTIVATIONS = {
    **dict.fromkeys(("relu", "relu_"), "relu"),
    "sigmoid": "sigmoid",
    "gelu": "gelu",
    **dict.fromkeys(("silu", "silu_"), "silu"),
    **dict.fromkeys(("softmax", "_softmax", "log_softmax", "_log_softmax", "_safe_softmax"), "softmax"),
    **dict.fromkeys(("batch_norm", "_native_batch_norm_legit_no_training", "_native_batch_norm_legit"), "batchnorm"),
    "_native_batch_norm_legit_functional": "batchnorm",
    **dict.fromkeys(("layer_norm", "native_layer_norm"), "layernorm"),
    "rms_norm": "rmsnorm",
}
CHARGED_AS = {
    **dict.fromkeys(("leaky_relu", "prelu", "clamp", "clamp_min", "hardtanh", "hardtanh_", "relu6"), "relu"),
    **dict.fromkeys(("elu", "selu", "celu"), "relu"),
    **dict.fromkeys(("tanh", "hardsigmoid", "softplus"), "sigmoid"),
    **dict.fromkeys(("hardswish", "hardswish_", "mish"), "silu"),
    "instance_norm": "batchnorm",
    **dict.fromkeys(("group_norm", "native_group_norm"), "layernorm"),
}
POOLS = {
    **dict.fromkeys(("max_pool2d", "max_pool2d_with_indices", "max_pool1d"), "maxpool"),
    **dict.fromkeys(("avg_pool2d", "avg_pool1d"), "avgpool"),
    **dict.fromkeys(("adaptive_max_pool2d",), "maxpool"),
    **dict.fromkeys(("adaptive_avg_pool2d", "_adaptive_avg_pool2d", "adaptive_avg_pool1d"), "avgpool"),
}
MOVES = re.compile(  # no work: the same values under another shape, place or type
    r"_to_copy|_unsafe_view|alias|cat|chunk|clone|constant_pad_nd|contiguous|copy|detach|detach_|dropout|expand|"
    r"expand_as|flatten|float|getitem|half|index_select|lift_fresh_copy|mT|movedim|narrow|native_dropout|numpy_t|"
    r"pad|permute|repeat|reshape|reshape_as|roll|select|slice|split|split_with_sizes|squeeze|stack|t|tile|to|"
    r"transpose|type_as|unbind|unflatten|unsqueeze|view|view_as"
)
NUMBERS = re.compile(  # sizes, masks and constants, not data that a layer works on
    r"_assert_scalar|_assert_tensor_metadata|all|any|arange|bitwise_and|bitwise_not|empty_like|eq|eye|full|"
    r"full_like|ge|gt|isnan|le|logical_and|logical_not|logical_or|lt|ne|new_full|new_ones|new_zeros|ones|ones_like|"
    r"scalar_tensor|sym_constrain_range_for_size|sym_size|tril|triu|zeros|zeros_like"
)
SIMPLE = re.compile(  # arithmetic element by element
    r"add|add_|div|div_|masked_fill|masked_fill_|mul|mul_|neg|pow|rsub|sub|sub_|where"
)
REFUSED = re.compile(  # products that would go uncounted
    r"_weight_norm|baddbmm|bilinear|conv3d|conv_transpose1d|conv_transpose2d|conv_transpose3d|deform_conv2d|einsum|"
    r"gru|lstm|rnn_relu|rnn_tanh"
)
