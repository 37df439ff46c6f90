# LVIS v1 with GOL: Gumbel classifier and normalised mask predictor, its
# temperature fixed at 20. Masks are cut at 0.5, as GOL does.
_base_ = ['./lvis_mask-rcnn.py', '../models/gol.py']
model = dict(
    roi_head=dict(
        bbox_head=dict(
            loss_cls=dict(
                _delete_=True, type='apa_mm.GOLLoss',
                num_classes=_base_.num_classes),
            init_cfg=_base_.gol_init),
        mask_head=dict(
            predictor_cfg=dict(type='apa_mm.CosineConv2d', temperature=20.))),
    test_cfg=dict(
        rcnn=dict(nms=dict(iou_threshold=0.3), mask_thr_binary=0.5)))
custom_hooks = _base_.gol_hooks
