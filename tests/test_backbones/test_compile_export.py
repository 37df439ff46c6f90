"""APAResNet under torch.compile, torch.export and ONNX."""
import copy

import pytest
import torch
from torch import nn

from apa_mm.backbones import APAResNet
from apa_mm.kernels import native
from apa_mm.layers import AGLU

SIDE = 32


def network(depth: int, dtype=torch.float32, **kwargs) -> nn.Module:
    model = APAResNet(depth, **kwargs).to(dtype)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.  # draws differ between the two ways to run it
        if isinstance(module, nn.BatchNorm2d):  # statistics that say something
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model


def compiled(model: nn.Module, backend: str) -> nn.Module:
    """'eager' only finds the graph, 'aot_eager' derives its backward too."""
    torch._dynamo.reset()
    return torch.compile(model, fullgraph=True, backend=backend)


@pytest.mark.parametrize('training', [False, True])
def test_resnet50_is_one_graph(training):
    # float64: BatchNorm of the two last pixels makes much of differences.
    model = network(50, torch.float64).train(training)
    twin = copy.deepcopy(model)
    x = torch.rand(2, 3, SIDE, SIDE, dtype=torch.float64)
    outs = compiled(model, 'eager')(x)
    for a, b in zip(outs, twin(x), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    if training:
        outs[-1].sum().backward()
        assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize('kwargs', [
    dict(),
    dict(
        with_cp=True,
        act_cfg=dict(
            type='apa_mm.AGLU', num_parameters='channels',
            lambda_grad='paper'))
], ids=['plain', 'channels'])
def test_gradients_of_a_compiled_network(kwargs):
    # float64, so that every gradient can be compared closely.
    model = network(
        18, torch.float64, num_stages=2, out_indices=(1, ), **kwargs).train()
    twin = copy.deepcopy(model)
    x = torch.rand(2, 3, SIDE, SIDE, dtype=torch.float64)
    for net in (compiled(model, 'aot_eager'), twin):
        net(x)[-1].square().mean().backward()
    for (name, p), q in zip(
            model.named_parameters(), twin.parameters(), strict=True):
        scale = q.grad.abs().max() + 1e-30
        torch.testing.assert_close(
            p.grad / scale, q.grad / scale, rtol=1e-7, atol=1e-7, msg=name)
    if kwargs:  # a checkpoint run again updates the statistics again
        return
    for name, buffer in model.named_buffers():
        torch.testing.assert_close(buffer, dict(twin.named_buffers())[name])


def test_one_graph_for_every_size():
    model = network(18, torch.float64, num_stages=2, out_indices=(1, )).train()
    twin, graphs = copy.deepcopy(model), []
    torch._dynamo.reset()
    run = torch.compile(
        model, dynamic=True, fullgraph=True,
        backend=lambda graph, _: graphs.append(1) or graph.forward)
    # Sizes that are equal in the first call are taken for the same.
    for shape in ((2, 3, SIDE, 2 * SIDE), (3, 3, 2 * SIDE, SIDE)):
        x = torch.rand(shape, dtype=torch.float64)
        torch.testing.assert_close(run(x)[0], twin(x)[0])
    assert len(graphs) == 1


@pytest.mark.slow
@pytest.mark.skipif(
    native.library() is None, reason='no C++ compiler on this machine')
def test_inductor_makes_code_of_a_unit():
    unit = AGLU()
    twin = copy.deepcopy(unit)
    x = torch.randn(5, 4)
    for model in (compiled(unit, 'inductor'), twin):
        model(x).square().sum().backward()
    for p, q in zip(unit.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-4, atol=1e-5)


def exported_batch():
    return {0: torch.export.Dim('batch', min=1, max=64)}


@torch.no_grad()
def test_export_of_the_eval_form_takes_any_batch():
    model = network(18).eval()
    program = torch.export.export(
        model, (torch.rand(2, 3, SIDE, SIDE), ),
        dynamic_shapes=(exported_batch(), ))
    x = torch.rand(5, 3, SIDE, SIDE)
    for a, b in zip(program.module()(x), model(x), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('dynamo, opset', [(False, 17), (True, 18)])
@torch.no_grad()
def test_onnx_runs_elsewhere(dynamo, opset, tmp_path):
    ort = pytest.importorskip('onnxruntime')
    onnx = pytest.importorskip('onnx')
    if dynamo:
        pytest.importorskip('onnxscript')
    model = network(18, num_stages=2, out_indices=(0, 1)).eval()
    path = tmp_path / 'model.onnx'
    x = torch.rand(2, 3, SIDE, SIDE)
    how = dict(dynamic_shapes=(exported_batch(), )) if dynamo else dict(
        dynamic_axes={'images': {0: 'batch'}})
    torch.onnx.export(
        model, (x, ), path, dynamo=dynamo, opset_version=opset,
        input_names=['images'], **how)
    assert onnx.load(path).opset_import[0].version == opset
    session = ort.InferenceSession(path, providers=['CPUExecutionProvider'])
    for batch in (x, torch.rand(3, 3, SIDE, SIDE)):
        outs = session.run(None, {'images': batch.numpy()})
        for a, b in zip(outs, model(batch), strict=True):
            torch.testing.assert_close(
                torch.from_numpy(a), b, rtol=1e-5, atol=1e-5)


def test_torchscript_traces_the_eval_form(tmp_path):
    model = network(18).eval()
    x = torch.rand(1, 3, SIDE, SIDE)
    with torch.no_grad():
        traced = torch.jit.trace(model, x, strict=False)
        traced.save(tmp_path / 'traced.pt')
        y = torch.rand(2, 3, SIDE, SIDE)
        for each in (traced, torch.jit.load(tmp_path / 'traced.pt')):
            for a, b in zip(each(y), model(y), strict=True):
                torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
