"""Files of ablations hold known keys alone."""

import pytest
from pydantic import ValidationError

from orchestrator.ablations.model import Frame, Part, Twin


@pytest.mark.parametrize("model", [Part, Twin])
def test_unknown_key_is_refused(model):
    assert model.model_validate({"scale": {"data.samples": 0.5}}).scale == {"data.samples": 0.5}
    with pytest.raises(ValidationError, match="Extra inputs"):
        model.model_validate({"scales": {}})


def test_frame_needs_bases_and_settings():
    with pytest.raises(ValidationError, match="bases"):
        Frame.model_validate({"settings": {}})
