# SE baseline: sigmoid gates, ReLU units.
_base_ = './apa-seresnet50_relu_4xb64-mixup-100e_in1k.py'
model = dict(
    backbone=dict(
        attention_cfg=dict(
            gate_cfg=dict(_delete_=True, type='Sigmoid'),
            norm_cfg=None,
            dropout=0.)))
