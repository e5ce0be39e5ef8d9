"""Which products an off-policy update consists of."""

import off_policy_limits
import pytest


@pytest.mark.parametrize(
    ("passes", "n_hidden"),
    [
        (off_policy_limits.passes_of_sac_v(3, 1, 256), 16),  # as docs/sac_v.md counts them
        (off_policy_limits.passes_of_gumbel_ddpg(4, 2, 256), 10),
    ],
)
def test_products_of_hidden_layers(passes, n_hidden):
    shapes = [(left.shape, right.shape) for left, right in off_policy_limits.products(passes, 256)]
    assert shapes.count(((256, 256), (256, 256))) == n_hidden
    assert all(left[1] == right[0] for left, right in shapes)


def test_a_network_is_multiplied_forward_and_back():
    shapes = [(left.shape, right.shape) for left, right in off_policy_limits.products([([3, 5, 2], "fw")], 7)]
    forward, of_weights, of_hidden = (
        [((7, 3), (3, 5)), ((7, 5), (5, 2))],
        [((5, 7), (7, 3)), ((2, 7), (7, 5))],
        [((7, 2), (2, 5))],
    )
    assert sorted(shapes) == sorted([*forward, *of_weights, *of_hidden])
