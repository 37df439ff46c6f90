"""configs/lm: the recipe, and a miniature of it on text of scikit-learn."""
import json
import math
import os
import runpy
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import sklearn.datasets
import torch
from mmengine.config import Config
from mmengine.registry import PARAM_SCHEDULERS
from support.configs import LM, ROOT, parsed
from support.optional import FOLDER, NOT_THERE

STEPS, WARM = 19_073, 715
needs_transformers = pytest.mark.skipif(
    find_spec('transformers') is None
    and not (FOLDER / 'transformers').is_dir(),
    reason=f'transformers is {NOT_THERE}')


def learning_rate(step):
    """build-nanogpt's, in its own words: warm-up, cosine, a tenth left."""
    if step < WARM:
        return 6e-4 * (step + 1) / WARM
    part = (step - WARM) / (STEPS - WARM)
    return 6e-5 + (6e-4 - 6e-5) * (1 + math.cos(math.pi * part)) / 2


@pytest.mark.parametrize('ranks, micro', [(8, 64), (1, 256)])
def test_every_step_has_its_tokens_and_its_learning_rate(
        ranks, micro, monkeypatch):
    monkeypatch.setenv('WORLD_SIZE', str(ranks))
    monkeypatch.setenv('MICRO_BATCH', str(micro))
    cfg = Config.fromfile(ROOT / LM[0])
    count = cfg.optim_wrapper.accumulative_counts
    batch = cfg.train_dataloader.batch_size
    assert ranks * micro * 1024 * count == 524_288 and batch == micro
    assert cfg.train_cfg.max_iters == STEPS * count
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=6e-4)
    schedulers = [PARAM_SCHEDULERS.build(dict(item, optimizer=optimizer))
                  for item in cfg.param_scheduler]
    for i in range(cfg.train_cfg.max_iters):
        if i % count == count - 1:  # where the optimizer steps
            want = learning_rate(i // count)
            got = optimizer.param_groups[0]['lr']
            # A scheduler counts iterations: up to a step ahead in the cosine.
            assert abs(got - want) <= 6e-4 * (
                math.pi / 2 / (STEPS - WARM) * (count > 1) + 1e-9), i
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()


def test_the_recipe_is_the_public_one():
    cfg = parsed(LM[0])
    wrapper = cfg.optim_wrapper
    assert wrapper.optimizer == dict(type='AdamW', lr=6e-4, betas=(.9, .95),
                                     weight_decay=.1)
    assert wrapper.clip_grad == dict(max_norm=1.)
    assert wrapper.dtype == 'bfloat16'
    assert not cfg.train_dataloader.sampler.shuffle
    # AGLU starts from its own ranges, not as GELU's likeness.
    aglu, = (name for name in LM if '_aglu_' in name)
    assert parsed(aglu).model.replace == dict(init='random')


SIZES = """
import sys
sys.modules['mmdet'] = sys.modules['mmpretrain'] = None
import json, torch
from mmengine.optim import build_optim_wrapper
from support.configs import LM, build_on_meta, load
found = {}
for name in LM:
    cfg = load(name)
    model = build_on_meta(cfg)
    wrapper = dict(cfg.optim_wrapper, type='OptimWrapper')
    del wrapper['dtype'], wrapper['loss_scale']
    groups = build_optim_wrapper(model, wrapper).optimizer.param_groups
    shown = [(p.ndim, g['weight_decay']) for g in groups for p in g['params']]
    drops = [m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)]
    found[name] = [sum(p.numel() for p in model.parameters()), len(shown),
                   len(list(model.parameters())), sorted(set(shown)),
                   sorted(set(drops))]
print(json.dumps(found))
"""


def run(*words):
    path = os.pathsep.join(map(str, (
        ROOT, ROOT / 'tests', os.environ.get('PYTHONPATH', ''), FOLDER)))
    env = dict(os.environ, PYTHONPATH=path, OMP_NUM_THREADS='1')
    for name in ('WORLD_SIZE', 'RANK', 'LOCAL_RANK'):
        env.pop(name, None)
    result = subprocess.run([sys.executable, *map(str, words)], env=env,
                            capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr
    return result.stdout


@needs_transformers
def test_the_models_are_gpt2_small():
    found = json.loads(run('-c', SIZES).splitlines()[-1])
    # Embeddings, 12 blocks, the last norm; the head is the embedding.
    size = (50304 + 1024) * 768 + 12 * (12 * 768**2 + 13 * 768) + 2 * 768
    for name, (numbers, decayed, tensors, decay, drops) in found.items():
        assert numbers == size + 24 * ('aglu' in name)
        assert decayed == tensors  # each once, the shared one too
        assert decay == [[1, 0.], [2, .1]] and drops == [0.]
    assert len(found) == 2


ITEMS = [
    ('The data set has', ['150 items', 'a b', 'zzzzzzzz', 'x'], 0),
    ('Number of', ['instances', 'qqqq', 'I', 'attributes and so'], 3),
    ('This is', ['a copy', 'the', '%%%%%%%%%', 'of UCI'], 1),
    ('In the', ['house', 'data', 'feature', 'mean of it'], 2),
    ('mean and', ['standard', 'error', 'e', 'the'], 0),
]


@pytest.fixture(scope='module')
def miniature(tmp_path_factory):
    folder = tmp_path_factory.mktemp('lm')
    (folder / 'texts').mkdir()
    texts = Path(sklearn.datasets.__file__).parent / 'descr'
    for path in texts.glob('*.rst'):
        (folder / 'texts' / f'{path.stem}.txt').write_bytes(path.read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', [
            'prepare_tokens.py', f'{folder}/texts', f'{folder}/tokens',
            '--tokenizer', 'bytes', '--val-tokens', '2000', '--shard-size',
            '9000'])
        runpy.run_path(str(ROOT / 'tools/prepare_tokens.py'),
                       run_name='__main__')
    (folder / 'items.jsonl').write_text('\n'.join(
        json.dumps(dict(ctx=ctx, endings=endings, label=label))
        for ctx, endings, label in ITEMS))
    run(ROOT / 'tests/support/lm_miniature.py', folder)
    return json.loads((folder / 'result.json').read_text())


@needs_transformers
def test_the_loss_falls(miniature):
    losses = miniature['losses']
    assert len(losses) == 60 and abs(losses[0] - math.log(257)) < .2
    assert sum(losses[-10:]) / 10 < 3.6
    before, after = (said['tokens/loss'] for said in miniature['said'])
    assert after < before < losses[0]


@needs_transformers
def test_a_resumed_run_is_the_uninterrupted_one(miniature):
    assert miniature['resumed'] == 0 < miniature['moved']


@needs_transformers
def test_two_ranks_are_one(miniature):
    assert miniature['ranks'] == [0, 0]
    assert miniature['two'] < miniature['moved'] / 100
    one, two = miniature['said'], miniature['two_said']
    assert len(one) == len(two) == 2
    for ours, theirs in zip(one, two, strict=True):
        assert ours['tokens/loss'] == pytest.approx(
            theirs['tokens/loss'], abs=1e-3)
        assert ours['hellaswag/acc'] == theirs['hellaswag/acc']


@needs_transformers
def test_hellaswag_is_the_oracles(miniature):
    figures, largest = miniature['oracle']
    assert figures.items() <= miniature['said'][-1].items()
    assert largest < 1e-3


@needs_transformers
def test_aglu_is_in_every_block_and_gelu_trains_in_bfloat16(miniature):
    assert miniature['units'] == [2, 0]
    assert len(miniature['amp']) == 2
