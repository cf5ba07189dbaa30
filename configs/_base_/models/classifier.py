# An image classifier. A config adds `backbone` and `head`, which reads the backbone's last map.
model = dict(
    type='attnpool_backbones.ImageClassifier',
    data_preprocessor=dict(
        type='ImgDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
    ),
    backbone=dict(out_indices=-1),
)
