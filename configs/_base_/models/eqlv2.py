# EQLv2 in a box head of mmdet; its user adds num_classes. As GOL's classifier,
# but all classes start at the score sigmoid(-6.9) = 1e-3.
_base_ = './gol.py'
eqlv2 = dict(_delete_=True, type='apa_mm.EQLV2Loss')
eqlv2_init = [dict(_base_.gol_init[0], bias=-6.9), *_base_.gol_init[1:]]
