"""The articles' ablations in the nano sizes: what is trained in the place of each backbone."""

from attnpool_backbones.backbones import MetaFormer

ABLATIONS = {
    'patchconvnet-nano': ('nano_linear', 'nano_attention', 'nano_linear_attention'),
    'sge-resnet-nano': (
        *(f'sge_resnet_nano_groups{n}' for n in (4, 8, 32, 64)),
        *(f'sge_resnet_nano_{name}' for name in ('scale0_shift0', 'scale1_shift0',
          'scale1_shift1', 'unnormalized')),
        *(f'{unit}_resnet_nano' for unit in ('se', 'sk', 'cbam', 'bam', 'gc')),
        *(f'{unit}_resnet_nano_attnpool' for unit in ('se', 'gc')),
    ),
    'coatnet-nano': ('nano_cccc', 'nano_ccct', 'nano_cttt', 'nano_vit_rel', 'nano_after'),
    'deepvit-nano': (
        *(f'nano_{kind}{depth}b' for kind in ('', 'vit_') for depth in (12, 16, 24, 32)),
        *(f'nano_vit_12b_{width}' for width in (64, 192, 256)),
    ),
    'poolformer-nano': tuple(arch for arch in MetaFormer.archs if arch.startswith('nano_')),
}  # fmt: skip
"""Config -> variants of its backbone that the articles' ablations compare."""
