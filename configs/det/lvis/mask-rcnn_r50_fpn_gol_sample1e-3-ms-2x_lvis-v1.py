# GOL on a plain ResNet-50 (Table 5): Gumbel classifier without background
# channel, normalised mask predictor.
_base_ = './mask-rcnn_r50_fpn_sample1e-3-ms-2x_lvis-v1.py'
model = dict(
    roi_head=dict(
        bbox_head=dict(
            loss_cls=dict(
                _delete_=True,
                type='apa_mm.GOLLoss',
                num_classes={{_base_.num_classes}}),
            # All classes start at the score exp(-exp(2)) = 6e-4. The other
            # layers keep mmdet's initialisation, which a lone entry for
            # fc_cls would replace by torch's.
            init_cfg=[
                dict(
                    type='Constant',
                    val=0.001,
                    bias=-2.,
                    override=dict(name='fc_cls')),
                dict(type='Normal', std=0.001, override=dict(name='fc_reg')),
                dict(
                    type='Xavier',
                    distribution='uniform',
                    override=dict(name='shared_fcs'))
            ]),
        mask_head=dict(
            predictor_cfg=dict(type='apa_mm.CosineConv2d', temperature=20.))),
    test_cfg=dict(
        rcnn=dict(nms=dict(iou_threshold=0.3), mask_thr_binary=0.4)))

custom_hooks = [
    # Gives the image frequencies of the training set to the loss.
    dict(type='apa_mm.ClassFrequencyHook'),
    dict(type='apa_mm.CheckpointCheckHook')
]
