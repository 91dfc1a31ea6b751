import math

import numpy as np
import pytest
import torch
from detectnet_v2 import cost, spec_pb2
from detectnet_v2.errors import DetectNetError


def binary_cross_entropy(p, t):
    return -(t * math.log(p + 1e-5) + (1 - t) * math.log(1 - p + 1e-5))


def class_cost(name="cat", weight=1.0, foreground=0.05, initial=(1.0, 10.0), target=(1.0, 10.0)):
    return cost.ClassCost(name, weight, foreground, initial, target)


def targets(cov, cov_norm=None, bbox=None, weight=None):
    cov = torch.as_tensor(cov, dtype=torch.float32)
    count, classes, height, width = cov.shape
    return cost.Targets(
        cov,
        torch.zeros_like(cov) if cov_norm is None else torch.as_tensor(cov_norm),
        torch.zeros(count, 4 * classes, height, width) if bbox is None else torch.as_tensor(bbox),
        torch.ones(count) if weight is None else torch.as_tensor(weight),
    )


def test_coverage_cost_weighs_foreground_and_background_and_averages_over_all_cells():
    predicted = torch.tensor([0.9, 0.3, 0.2, 0.6]).view(1, 1, 2, 2)
    target = torch.tensor([1.0, 0.5, 0.0, 0.75]).view(1, 1, 2, 2)
    result = cost.coverage_cost(predicted, target, foreground_weight=torch.tensor([0.05]))
    # A target of exactly a half is background.
    weights = (0.05, 0.95, 0.95, 0.05)
    cells = zip((0.9, 0.3, 0.2, 0.6), (1.0, 0.5, 0.0, 0.75), weights, strict=True)
    expected = sum(w * binary_cross_entropy(p, t) for p, t, w in cells) / 4
    assert result.tolist() == pytest.approx([expected], rel=1e-5)


def test_coverage_cost_stays_finite_at_the_ends():
    predicted = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2)
    result = cost.coverage_cost(predicted, 1 - predicted, foreground_weight=torch.tensor([0.5]))
    assert result.item() == pytest.approx(-0.5 * math.log(1e-5), rel=1e-3)


def test_focal_and_positive_weighting():
    predicted = torch.tensor([0.9, 0.3]).view(1, 1, 1, 2)
    target = torch.tensor([1.0, 0.0]).view(1, 1, 1, 2)
    result = cost.coverage_cost(
        predicted,
        target,
        foreground_weight=torch.tensor([0.5]),
        focal_gamma=2.0,
        positive_weight=4.0,
    )
    expected = 0.5 * 4 * 0.1**2 * binary_cross_entropy(0.9, 1)
    expected += 0.5 * 0.3**2 * binary_cross_entropy(0.3, 0)
    assert result.item() == pytest.approx(expected / 2, rel=1e-5)


def test_a_focal_root_has_a_slope_where_the_prediction_is_exact():
    predicted = torch.tensor([0.0, 0.3, 1.0]).view(1, 1, 1, 3).requires_grad_()
    target = torch.tensor([0.0, 0.3, 1.0]).view(1, 1, 1, 3)
    result = cost.coverage_cost(
        predicted, target, foreground_weight=torch.tensor([0.5]), focal_gamma=0.5
    )
    result.sum().backward()
    assert torch.isfinite(predicted.grad).all()


def test_bbox_cost_divides_by_the_whole_grid_and_the_four_sides():
    predicted, target = torch.zeros(1, 8, 2, 3), torch.zeros(1, 8, 2, 3)
    target[0, 0, 0, 0] = 2.0
    target[0, 5, 1, 2] = -3.0
    target[0, 6, 0, 1] = 100.0
    cov_norm = torch.zeros(1, 2, 2, 3)
    cov_norm[0, 0, 0, 0] = 0.5
    cov_norm[0, 1, 1, 2] = 0.25
    result = cost.bbox_cost(predicted, target, cov_norm)
    assert result.tolist() == pytest.approx([2 * 0.5 / 24, 3 * 0.25 / 24])


def test_source_weights_multiply_images():
    predicted = torch.full((2, 1, 1, 1), 0.5)
    target = torch.zeros(2, 1, 1, 1)
    function = cost.CostFunction([class_cost()])
    both = function.costs(
        torch.ones(2, 4, 1, 1), predicted, targets(target, torch.ones(2, 1, 1, 1))
    )
    weighted = function.costs(
        torch.ones(2, 4, 1, 1),
        predicted,
        targets(target, torch.ones(2, 1, 1, 1), weight=[3.0, 0.0]),
    )
    np.testing.assert_allclose(weighted, 1.5 * both, rtol=1e-6)


def test_weights_are_normalised_over_classes_and_over_objectives():
    function = cost.CostFunction([class_cost(weight=1.0), class_cost("dog", weight=8.0)])
    assert function.class_weights.tolist() == pytest.approx([1 / 9, 8 / 9])
    np.testing.assert_allclose(function.weights, [[1 / 11, 10 / 11]] * 2, rtol=1e-6)
    total = function.total(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    expected = (1 / 9) * (1 + 20) / 11 + (8 / 9) * (3 + 40) / 11
    assert total.item() == pytest.approx(expected)


def test_autoweighting_balances_the_sums_of_an_epoch():
    function = cost.CostFunction(
        [class_cost(), class_cost("dog", target=(1.0, 1.0))],
        autoweighting=True,
        min_weight=0.1,
        max_weight=0.85,
    )
    function.accumulate(torch.tensor([[1.0, 0.5], [0.3, 0.1]]))
    function.accumulate(torch.tensor([[1.0, 0.5], [0.3, 0.1]]))
    function.end_epoch()
    # cat: 1/2 and 10/1, so .0476 and .9524, both clipped and not normalised again.
    # dog: 1/.6 and 1/.2, so .25 and .75.
    np.testing.assert_allclose(function.weights, [[0.1, 0.85], [0.25, 0.75]], rtol=1e-6)
    function.end_epoch()
    np.testing.assert_allclose(function.weights, [[0.1, 0.85], [0.25, 0.75]], rtol=1e-6)


def test_autoweighting_ignores_an_objective_without_cost():
    function = cost.CostFunction([class_cost()], autoweighting=True)
    function.accumulate(torch.tensor([[2.0, 0.0]]))
    function.end_epoch()
    assert function.weights.tolist() == [[1.0, 0.0]]


def test_weights_stay_without_autoweighting():
    function = cost.CostFunction([class_cost()])
    function.accumulate(torch.tensor([[2.0, 1.0]]))
    function.end_epoch()
    np.testing.assert_allclose(function.weights, [[1 / 11, 10 / 11]], rtol=1e-6)


def test_state_continues_in_the_middle_of_an_epoch():
    whole = cost.CostFunction([class_cost()], autoweighting=True)
    whole.accumulate(torch.tensor([[0.7, 0.2]]))
    resumed = cost.CostFunction([class_cost()], autoweighting=True)
    resumed.load_state_dict(whole.state_dict())
    for function in (whole, resumed):
        function.accumulate(torch.tensor([[0.1, 0.4]]))
        function.end_epoch()
    assert torch.equal(whole.weights, resumed.weights)


@pytest.mark.parametrize(("kind", "power"), [("L1", 1), ("L2", 2)])
def test_regularizer_is_a_sum_and_adds_its_gradient(kind, power):
    parameters = [
        torch.nn.Parameter(torch.tensor([1.5, -2.0])),
        torch.nn.Parameter(torch.tensor([[0.5]])),
    ]
    config = spec_pb2.RegularizerConfig(type=kind, weight=0.1)
    regularizer = cost.Regularizer(config, parameters)
    term = 0.1 * sum((p.abs() ** power).sum() for p in parameters)
    term.backward()
    expected = [p.grad.clone() for p in parameters]
    for p in parameters:
        p.grad = torch.zeros_like(p)
    regularizer.add_gradients()
    assert float(regularizer.cost()) == pytest.approx(term.item())
    for p, gradient in zip(parameters, expected, strict=True):
        np.testing.assert_allclose(p.grad, gradient, rtol=1e-6)


def test_no_regularizer_costs_nothing():
    parameter = torch.nn.Parameter(torch.ones(2))
    regularizer = cost.Regularizer(spec_pb2.RegularizerConfig(weight=1.0), [parameter])
    regularizer.add_gradients()
    assert regularizer.cost() == 0
    assert parameter.grad is None


def experiment(**changes):
    result = spec_pb2.Experiment()
    target = result.cost_function_config.target_classes.add(
        name="mask", class_weight=1, coverage_foreground_weight=0.05
    )
    for name, value in changes.items():
        setattr(target, name, value)
    target.objectives.add(name="bbox", initial_weight=10, weight_target=10)
    target.objectives.add(name="cov", initial_weight=1, weight_target=1)
    return result


def test_the_order_of_objectives_in_the_spec_does_not_matter():
    function = cost.from_spec(experiment())
    np.testing.assert_allclose(function.weights, [[1 / 11, 10 / 11]], rtol=1e-6)


def test_classes_without_a_weight_are_refused():
    with pytest.raises(DetectNetError, match="every class_weight is 0"):
        cost.from_spec(experiment(class_weight=0.0))


def test_objectives_without_a_weight_are_refused():
    spec = experiment()
    for objective in spec.cost_function_config.target_classes[0].objectives:
        objective.initial_weight = 0
    with pytest.raises(DetectNetError, match="'mask': initial_weight of the objectives must be"):
        cost.from_spec(spec)


def test_a_loss_mask_is_refused():
    spec = experiment()
    spec.loss_mask_label_filter.mask_multiplier = 0.5
    with pytest.raises(DetectNetError, match="loss_mask_label_filter: not supported"):
        cost.from_spec(spec)


def test_an_unknown_objective_is_refused():
    spec = experiment()
    spec.cost_function_config.target_classes[0].objectives.add(name="depth")
    with pytest.raises(DetectNetError, match="'depth'"):
        cost.from_spec(spec)


def test_giou_cost_is_that_of_the_boxes():
    # Distances left, top, right, bottom of one cell: 2 x 2 about the point, and moved by 1 in x.
    target = torch.tensor([1.0, 1.0, 1.0, 1.0]).view(1, 4, 1, 1)
    moved = torch.tensor([0.0, 1.0, 2.0, 1.0]).view(1, 4, 1, 1)
    norm = torch.full((1, 1, 1, 1), 0.5)
    # Overlap 2, union 6, hull 6.
    assert cost.giou_cost(moved, target, norm).item() == pytest.approx(0.5 * (1 - 2 / 6), abs=1e-4)
    assert cost.giou_cost(target, target, norm).item() == pytest.approx(0, abs=1e-4)
    # Apart: overlap 0, areas 4 and 4, hull 6 x 2.
    apart = torch.tensor([-3.0, 1.0, 5.0, 1.0]).view(1, 4, 1, 1)
    expected = 0.5 * (1 + (12 - 8) / 12)
    assert cost.giou_cost(apart, target, norm).item() == pytest.approx(expected, abs=1e-4)
    # The same at a tenth of the size, where L1 is a tenth.
    small = cost.giou_cost(moved / 10, target / 10, norm).item()
    assert small == pytest.approx(0.5 * (1 - 2 / 6), abs=1e-3)


def test_giou_is_added_to_the_box_cost_with_its_weights():
    rng = torch.Generator().manual_seed(0)
    bbox, goal = (torch.rand(2, 8, 3, 4, generator=rng) for _ in range(2))
    norm, weight = torch.rand(2, 2, 3, 4, generator=rng), torch.tensor([1.0, 3.0])
    wanted = targets(torch.zeros(2, 2, 3, 4), norm, goal, weight)
    cov = torch.full((2, 2, 3, 4), 0.5)
    classes = [class_cost("cat"), class_cost("dog")]
    plain = cost.CostFunction(classes).costs(bbox, cov, wanted)
    both = cost.CostFunction(classes, giou=True).costs(bbox, cov, wanted)
    assert torch.equal(plain[:, 0], both[:, 0])
    each = [
        cost.giou_cost(bbox[i : i + 1], goal[i : i + 1], norm[i : i + 1]) * weight[i]
        for i in range(2)
    ]
    torch.testing.assert_close(both[:, 1] - plain[:, 1], sum(each) / 2)
