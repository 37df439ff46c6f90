# SE baseline: sigmoid gates, ReLU units.
_base_ = './apa-seresnet50_4xb256-repeataug-500e_inat18.py'
model = dict(
    backbone=dict(
        act_cfg=dict(type='ReLU', inplace=True),
        attention_cfg=dict(gate_cfg=dict(_delete_=True, type='Sigmoid'))))
