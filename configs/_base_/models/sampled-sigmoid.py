# Binary cross entropy over 50 sampled classes in a box head of mmdet; its user
# adds num_classes. As GOL's classifier and hooks, but all classes start at the
# score sigmoid(-4.6) = 0.01, as in CenterNet2 and Detic.
_base_ = './gol.py'
sampled_sigmoid = dict(_delete_=True, type='apa_mm.SampledSigmoidLoss')
sampled_sigmoid_init = [
    dict(_base_.gol_init[0], bias=-4.6), *_base_.gol_init[1:]
]
