"""The predict service: serves models by name, and by the Open Inference Protocol."""

from __future__ import annotations

from fastapi import FastAPI

import chassis
from chassis import ApiVersion, Clock, load_settings
from predict import api_v1, api_v2
from predict.openapi import describe_models
from predict.service import setup, watch
from predict.settings import Settings

_DESCRIPTION = """
Serves machine-learning models: ONNX files by ONNX Runtime, scikit-learn ones saved with skops.

**v1** takes rows by name of feature and answers values with their interval, or labels with
probabilities. **v2** is the Open Inference Protocol, which KServe, Triton and MLServer speak too.
Versions of a model serve side by side; a request without a version gets the newest.
"""


def create_app(settings: Settings | None = None, *, clock: Clock | None = None) -> FastAPI:
    """Return the application; the settings come from the environment unless given.

    Raises:
        SettingsError: a setting is missing or wrong.
    """
    app = chassis.create_app(
        settings or load_settings(Settings),
        title="Predict",
        description=_DESCRIPTION,
        versions=[ApiVersion("v1", api_v1.router), ApiVersion("v2", api_v2.router)],
        routers=[api_v1.internal],
        workers={"models": watch},
        setup=setup,
        around=api_v2.ErrorMember,
        clock=clock,
    )
    describe_models(app)
    return app
