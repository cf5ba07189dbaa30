"""The operators and their example inputs: one row each."""

from attnpool_backbones.ops.star_relu import squared_relu, star_relu
from tests.ops.mmcv_rows import MMCV_ROWS
from tests.ops.rows import Row

ROWS = [
    *MMCV_ROWS,
    Row(
        operator=squared_relu,
        example=lambda draw: (draw.map(draw.size(1, 5)),),
        overwrites=(0,),
    ),
    Row(
        operator=star_relu,
        example=lambda draw: (draw.map(draw.size(1, 5)), draw.tensor(1), draw.tensor(1)),
        overwrites=(0,),
    ),
]
