"""What the tests of the commands share."""

import pytest


@pytest.fixture
def tiny(params, tiny_model):
    """Parameters of a tiny network."""
    params["model"] = tiny_model.model_dump()
    params["data"] |= {"image_size": 16, "source": "synthetic"}
    params["train"] |= {"batch_size": 32}
    params["sample"] |= {"n": 16, "steps": 20, "batch_size": 4}
    params["fid"] |= {"extractor": "efficientnet_lite0"}
    return params | {"device": "cpu"}
