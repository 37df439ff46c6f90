# GOL in a box head of mmdet: a Gumbel classifier without background channel.
# All classes start at the score exp(-exp(2)) = 6e-4. An init_cfg replaces the
# head's own, hence the other layers again.
gol_init = [
    dict(type='Constant', val=0.001, bias=-2., override=dict(name='fc_cls')),
    dict(type='Normal', std=0.001, override=dict(name='fc_reg')),
    dict(
        type='Xavier',
        distribution='uniform',
        override=dict(name='shared_fcs'))
]
gol_hooks = [
    # Gives the image frequencies of the training set to the loss.
    dict(type='apa_mm.ClassFrequencyHook'),
    dict(type='apa_mm.CheckpointCheckHook')
]
