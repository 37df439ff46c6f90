# What the authors' detection configs do otherwise than the paper. Keys that
# were dead there (fp16, evaluation, perclass_nms, loop settings inside the
# model's train_cfg) are left out: they had no effect, but for the last, which
# left mmdet's default of validating after every epoch. The LVIS configs also
# initialise nothing of the box head but fc_cls.

# The stem's AGLU stays trainable though its stage is frozen.
released_backbone = dict(freeze_stem_act=False)
# kappa, lambda and biases decay like every other parameter.
released_optim_wrapper = dict(
    constructor='DefaultOptimWrapperConstructor', paramwise_cfg=None)
# V3Det: the bias inside the cosine, and 3.14 for pi.
released_classifier = dict(
    type='apa_mm.WrappedCauchyLinear', scale=300., form='released')
