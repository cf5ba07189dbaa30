# Mask R-CNN that two CPU cores train in minutes on digit scenes: a 64-channel FPN over strides 8
# and 16, few proposals and RoIs, small heads. Anchors of 24, 36, 48 and 72 pixels, square or twice
# as high as wide. Trained from scratch, so the FPN and the mask head are normalised.
_base_ = './mask-rcnn_fpn.py'

norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    neck=dict(out_channels=64, num_outs=2, norm_cfg=norm_cfg),
    rpn_head=dict(
        in_channels=64,
        feat_channels=64,
        anchor_generator=dict(scales=[3, 4.5], ratios=[1.0, 2.0], strides=[8, 16]),
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(
            roi_layer=dict(sampling_ratio=1), out_channels=64, featmap_strides=[8, 16]
        ),
        # Telling digits apart is the hard part here, hence the weight.
        bbox_head=dict(
            in_channels=64,
            fc_out_channels=256,
            num_classes=10,
            reg_class_agnostic=True,
            loss_cls=dict(loss_weight=2.0),
        ),
        mask_roi_extractor=dict(
            roi_layer=dict(output_size=10, sampling_ratio=1),
            out_channels=64,
            featmap_strides=[8, 16],
        ),
        mask_head=dict(
            num_convs=1, in_channels=64, conv_out_channels=64, num_classes=10, norm_cfg=norm_cfg
        ),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=128)),
        rpn_proposal=dict(nms_pre=100, max_per_img=50),
        rcnn=dict(sampler=dict(num=16), mask_size=20),
    ),
    test_cfg=dict(rpn=dict(nms_pre=300, max_per_img=100), rcnn=dict(max_per_img=20)),
)
