"""The zoo: small networks by hand."""

import pytest

from tests.zoo.zoo import BY_HAND, asked, check


@pytest.mark.parametrize("name", asked(BY_HAND))
def test_a_network_is_served_as_is_expected(name):
    check(name)
