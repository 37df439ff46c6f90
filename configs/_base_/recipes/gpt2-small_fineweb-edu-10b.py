# GPT-2 small by the public recipe build-nanogpt (Table 15): 19,073 steps of
# 524,288 tokens. torchrun sets WORLD_SIZE; where another launcher does not,
# set it. A micro batch of 64 windows takes a GPU of 80 GB.
_base_ = '../runtime/safe_hooks.py'
default_scope = 'mmengine'
micro_batch = int('{{$MICRO_BATCH:64}}')
accumulation = 524288 // (micro_batch * 1024 * int('{{$WORLD_SIZE:1}}'))
max_iters = 19073 * accumulation
interval = 250 * accumulation
model = dict(
    type='apa_mm.GPT2',
    config=dict(  # transformers' defaults are the rest of GPT-2 small
        vocab_size=50304, resid_pdrop=0., embd_pdrop=0., attn_pdrop=0.))
train_dataloader = dict(
    batch_size=micro_batch, num_workers=4, persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=False),
    dataset=dict(
        type='apa_mm.TokenShards',
        shards='data/fineweb-edu-10b/*train_*.npy'))
val_dataloader = dict(
    batch_size=16, num_workers=2, persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='ConcatDataset',
        datasets=[
            dict(
                type='apa_mm.TokenShards', max_windows=10240,
                shards='data/fineweb-edu-10b/*val_*.npy'),
            dict(
                type='apa_mm.HellaSwagEndings',
                path='data/hellaswag/hellaswag_val.jsonl',
                tokenizer=dict(kind='tiktoken'))
        ]))
val_evaluator = [
    dict(type='apa_mm.TokenLoss'), dict(type='apa_mm.HellaSwagAccuracy')]
test_dataloader, test_evaluator = val_dataloader, val_evaluator
train_cfg = dict(by_epoch=False, max_iters=max_iters, val_interval=interval)
val_cfg, test_cfg = dict(), dict()
optim_wrapper = dict(
    type='AmpOptimWrapper', dtype='bfloat16', loss_scale=1.,
    constructor='apa_mm.APAOptimWrapperConstructor',
    # The embedding is the head, too, and must be in one group alone.
    paramwise_cfg=dict(flat_decay_mult=0., bypass_duplicate=True),
    optimizer=dict(type='AdamW', lr=6e-4, betas=(.9, .95), weight_decay=.1),
    accumulative_counts=accumulation, clip_grad=dict(max_norm=1.))
warmup = 715 * accumulation
param_scheduler = [
    dict(type='LinearLR', start_factor=1 / warmup, by_epoch=False, end=warmup),
    dict(type='CosineAnnealingLR', eta_min_ratio=.1, by_epoch=False,
         begin=warmup, end=max_iters)
]
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=10 * accumulation),
    **_base_.safe_hooks)
default_hooks['checkpoint'].update(
    by_epoch=False, interval=20 * interval, max_keep_ckpts=3)
log_processor = dict(by_epoch=False)
