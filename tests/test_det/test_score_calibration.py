"""Post-hoc calibration in the box head, by name in a config."""
import pytest
import torch

pytest.importorskip('mmdet')

from mmengine.config import Config  # noqa: E402

from apa_mm.det.bbox_head import LargeVocabBBoxHead  # noqa: E402
from apa_mm.functional import calibrate_scores  # noqa: E402
from apa_mm.preflight.loss_checks import check_losses  # noqa: E402

C = 4
COUNTS = torch.tensor([900, 90, 40, 1])
CALIBRATION = dict(type='apa_mm.ScoreCalibration', method='norcal', gamma=0.6)
META = dict(img_shape=(90, 120), scale_factor=(1., 1.))


def make(score_calibration=None, **kwargs):
    torch.manual_seed(0)
    return LargeVocabBBoxHead(
        in_channels=4, roi_feat_size=2, fc_out_channels=8, num_classes=C,
        score_calibration=score_calibration, **kwargs)


def raw_scores(head):
    """Return the scores before the NMS, as augmented testing takes them."""
    torch.manual_seed(1)
    cls_score, bbox_pred = head(torch.randn(9, 4, 2, 2))
    rois = torch.tensor([[0., 5, 5, 30, 30]]).repeat(9, 1)
    return head._predict_by_feat_single(rois, 30 * cls_score, bbox_pred,
                                        META).scores


@pytest.mark.parametrize('kwargs', [
    dict(), dict(loss_cls=dict(type='SeesawLoss', num_classes=C))
], ids=['softmax', 'seesaw'])
def test_a_head_calibrates_its_scores(kwargs):
    plain, head = make(**kwargs), make(CALIBRATION, **kwargs)
    # Weights that were trained without it fit.
    missing = head.load_state_dict(plain.state_dict(), strict=True)
    assert not missing.missing_keys
    with pytest.raises(RuntimeError, match='ScoreCalibration needs the class '
                       'counts'):
        raw_scores(head)
    head.score_calibration.set_class_frequency(COUNTS, 1000)
    scores = raw_scores(plain)
    want = calibrate_scores(scores, COUNTS, gamma=0.6)
    assert not torch.allclose(want, scores, atol=1e-3)
    torch.testing.assert_close(raw_scores(head), want)


@pytest.mark.parametrize('loss', [
    'GOLLoss', 'EQLV2Loss', 'SampledSigmoidLoss'])
def test_sigmoids_are_refused(loss):
    with pytest.raises(ValueError, match=f'sum to 1.*those of {loss} do not'):
        make(CALIBRATION, loss_cls=dict(type=f'apa_mm.{loss}', num_classes=C))


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match='norcal'):
        make(dict(CALIBRATION, method='platt'))


def test_the_preflight_asks_for_the_counts():
    head = dict(type='apa_mm.LargeVocabBBoxHead',
                score_calibration=CALIBRATION)
    cfg = Config(dict(model=dict(roi_head=dict(bbox_head=head))))
    problem, = check_losses(cfg, ['train']).problems
    assert 'bbox_head.score_calibration is apa_mm.ScoreCalibration' in problem
    cfg.custom_hooks = [dict(type='apa_mm.ClassFrequencyHook')]
    assert not check_losses(cfg, ['train']).problems
