"""Stage two of cRT from the config alone: frozen backbone, new classifier."""
import pytest
import torch
from support.tiny_classifier import classifier, runner

HEAD = dict(type='apa_mm.CosineClsHead', learnable_scale=True)
LINEAR = dict(type='mmpretrain.LinearClsHead')


def stage_two(checkpoint, **backbone):
    """The three settings: freeze all stages, load the backbone, new head."""
    return dict(
        frozen_stages=3,
        init_cfg=dict(
            type='Pretrained', checkpoint=checkpoint, prefix='backbone.'),
        **backbone)


@pytest.mark.parametrize('head', [HEAD, LINEAR], ids=['cosine', 'linear'])
@pytest.mark.parametrize('attention', ['ChannelAttention', 'CBAM'])
def test_only_a_new_classifier_is_trained(tmp_path, head, attention):
    backbone = dict(attention_cfg=dict(type=f'apa_mm.{attention}'))
    first = runner(tmp_path / 'one', classifier(head, backbone))
    first.train()
    stage_one = first.model.state_dict()
    path = str(tmp_path / 'one' / 'epoch_1.pth')

    second = runner(
        tmp_path / 'two', classifier(head, stage_two(path, **backbone)))
    second.model.init_weights()
    fresh = {k: v.clone() for k, v in second.model.state_dict().items()}
    assert not torch.equal(fresh['head.fc.weight'],
                           stage_one['head.fc.weight'])
    second.train()
    moved = set()
    for name, tensor in second.model.state_dict().items():
        if name.startswith('backbone.'):
            # Weights, running statistics and their counters, bit for bit.
            assert torch.equal(tensor, stage_one[name]), name
        elif not torch.equal(tensor, fresh[name]):
            moved.add(name)
    assert moved == {n for n, _ in second.model.head.named_parameters('head')}
    assert not any(m.training for m in second.model.backbone.stages)


def test_the_frozen_backbone_is_repeatable_in_training(tmp_path):
    model = runner(tmp_path,
                   classifier(HEAD, dict(frozen_stages=3))).model.train()
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(model.extract_feat(x)[0], model.extract_feat(x)[0])
    assert {n for n, p in model.named_parameters() if p.requires_grad} == {
        'head.fc.weight', 'head.fc.temperature'}


def test_a_missing_stage_one_checkpoint_is_named(tmp_path):
    job = runner(tmp_path, classifier(HEAD, stage_two('no/such.pth')))
    with pytest.raises(FileNotFoundError, match='no/such.pth does not exist'):
        job.train()


def test_the_head_of_stage_one_is_not_taken(tmp_path):
    # Loading all of stage one by load_from instead keeps its classifier.
    first = runner(tmp_path / 'one', classifier(HEAD))
    first.train()
    kept = runner(
        tmp_path / 'two',
        classifier(HEAD, dict(frozen_stages=3)),
        load_from=str(tmp_path / 'one' / 'epoch_1.pth'))
    kept.load_or_resume()
    assert torch.equal(kept.model.head.fc.weight, first.model.head.fc.weight)
