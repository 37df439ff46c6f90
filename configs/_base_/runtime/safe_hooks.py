# For every recipe: checkpoints that a kill cannot take and that a run goes on
# from exactly, an end when losses are lost, a look at the weight decay.
safe_hooks = dict(
    checkpoint=dict(type='apa_mm.SafeCheckpointHook'),
    non_finite_loss=dict(type='apa_mm.NonFiniteLossHook'),
    weight_decay_check=dict(type='apa_mm.WeightDecayCheckHook'))
