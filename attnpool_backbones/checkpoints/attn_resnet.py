"""Published checkpoints of ResNets with and without attention units."""

import re
from collections.abc import Mapping

from torch import Tensor

from attnpool_backbones.checkpoints.checkpoint_format import CheckpointFormat
from attnpool_backbones.checkpoints.renaming import rename_by_first

_RENAMED = (
    (r'\.se\.fc\.0\.', r'.se.reduce.'),
    (r'\.se\.fc\.2\.', r'.se.expand.'),
    (r'\.se\.fc1\.', r'.se.reduce.'),  # timm's seresnet
    (r'\.se\.fc2\.', r'.se.expand.'),
    (r'\.se_layer\.conv1\.conv\.', r'.se.reduce.'),  # mmpretrain's SEResNet
    (r'\.se_layer\.conv2\.conv\.', r'.se.expand.'),
    (r'\.context_block\.', r'.gc.'),  # mmdet's ResNet with the plugin ContextBlock
    (r'\.cbam\.ChannelGate\.mlp\.1\.', r'.cbam.channel.reduce.'),
    (r'\.cbam\.ChannelGate\.mlp\.3\.', r'.cbam.channel.expand.'),
    (r'\.cbam\.SpatialGate\.spatial\.', r'.cbam.spatial.'),
    (r'\.channel_att\.gate_c\.gate_c_fc_0\.', r'.channel.reduce.'),
    (r'\.channel_att\.gate_c\.gate_c_bn_1\.', r'.channel.norm.'),
    (r'\.channel_att\.gate_c\.gate_c_fc_final\.', r'.channel.expand.'),
    (r'\.spatial_att\.gate_s\.gate_s_conv_reduce0\.', r'.spatial.0.'),
    (r'\.spatial_att\.gate_s\.gate_s_bn_reduce0\.', r'.spatial.1.'),
    (r'\.spatial_att\.gate_s\.gate_s_conv_di_0\.', r'.spatial.3.'),
    (r'\.spatial_att\.gate_s\.gate_s_bn_di_0\.', r'.spatial.4.'),
    (r'\.spatial_att\.gate_s\.gate_s_conv_di_1\.', r'.spatial.6.'),
    (r'\.spatial_att\.gate_s\.gate_s_bn_di_1\.', r'.spatial.7.'),
    (r'\.spatial_att\.gate_s\.gate_s_conv_final\.', r'.spatial.9.'),
)

# Only in files with selective kernels: elsewhere conv2 and bn2 keep their names.
_RENAMED_SK = (
    (r'\.conv2\.', r'.sk.conv.'),
    (r'\.bn2\.', r'.sk.bn.'),
    (r'\.conv2g\.', r'.sk.conv_grouped.'),
    (r'\.bn2g\.', r'.sk.bn_grouped.'),
    (r'\.conv_fc1\.', r'.sk.reduce.'),
    (r'\.bn_fc1\.', r'.sk.reduce_bn.'),
    (r'\.conv_fc2\.', r'.sk.expand.'),
)

# Weights that PytorchInsight has as linear layers and this package as 1x1 convolutions.
_LINEAR = re.compile(r'.*\.(se|cbam\.channel|channel)\.(reduce|expand)\.weight$')


def _convert(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    has_sk = any(name.endswith('.conv2g.weight') for name in state_dict)
    rules = (*_RENAMED, *_RENAMED_SK) if has_sk else _RENAMED
    converted = {}
    for name, value in state_dict.items():
        name = rename_by_first(name, rules)
        if _LINEAR.match(name) and value.dim() == 2:
            value = value[:, :, None, None]
        converted[name] = value
    return converted


RESNET = CheckpointFormat(
    name='ResNet of torchvision, OpenMMLab, implus/PytorchInsight or this package',
    backbone='AttnResNet',
    signature=(r'conv1\.weight$', r'layer1\.0\.conv1\.weight$'),
    convert=_convert,
    leftovers=(r'fc\.', r'head\.fc\.', r'pool\.', r'pool_norm\.'),
    fresh=(r'pool\.', r'pool_norm\.', r'layer\d\.\d+\.(se|gc)\.pool\.'),
    names=(r'conv1\.', r'bn1\.', r'layer\d\.', r'bam\d\.'),
)
FORMATS = (RESNET,)
