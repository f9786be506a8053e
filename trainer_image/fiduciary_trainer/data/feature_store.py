"""A feature service of Feast, joined point in time to an entity frame.

Of each row of the frame Feast looks up the newest value that was there at the row's time: by the time of the event, and
by the time when it was written where the source tells that too, so that values filled in later are not seen earlier.
Rows that Feast leaves out (it does where nothing is known yet) come back with missing values: none vanishes.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from fiduciary_trainer.data import files
from fiduciary_trainer.data.locations import UNREACHABLE
from fiduciary_trainer.job import Files
from fiduciary_trainer.outcome import BadContract, DataRefused, Retryable

if TYPE_CHECKING:
    from fiduciary_trainer.data.locations import Locations
    from fiduciary_trainer.job import Contract, Feast

CONFIG = "feature_store.yaml"
"""Key of the Secret that holds the store's configuration, under the name that Feast gives the file."""

TIME, ROW = "event_timestamp", "fiduciary_row"
"""Columns of the frame as Feast gets it: its own name of the time, and where each row was."""


def read(source: Feast, contract: Contract, locations: Locations) -> pd.DataFrame:
    """The entity frame up to asOf with the columns of the feature service.

    Raises:
        BadContract: this image has no Feast, or the Secret no configuration that it takes.
        DataRefused: no such feature service, a join key is missing in the frame, or names clash.
        Retryable: registry or offline store cannot be reached.
    """
    store = _store(locations)
    service = _service(store, source)
    views = [store.get_feature_view(each.name) for each in service.feature_view_projections]
    keys = list(dict.fromkeys(key for view in views for key in view.join_keys))
    form = "CSV" if source.entity_uri.removesuffix(".gz").endswith(".csv") else "Parquet"
    frame = files.read(Files(source.entity_uri, form), contract, locations, also=keys)
    absent = [key for key in keys if key not in frame.columns]
    if absent:
        raise DataRefused(
            "MissingColumn",
            f"{source.entity_uri} lacks {', '.join(absent)}, by which {source.feature_service} is joined; it has "
            f"{', '.join(frame.attrs['seen'][:30])}; add the columns to the entity frame",
        )
    return _joined(store, service, views, frame, contract.data.time, source)


def _store(locations: Locations) -> Any:
    try:
        import feast
    except ImportError:
        raise BadContract(
            "NotAvailable",
            "data.source.feast needs an image with Feast, which this one is not; use the stage trainer-feast of "
            "trainer_image/Dockerfile, or files or dataset",
        ) from None
    config = locations.secret / CONFIG
    if not config.is_file():
        raise BadContract(
            "NoFeatureStore",
            f"the Secret of data.source.feast.configSecretRef has no key {CONFIG}; expected Feast's settings",
        )
    # Feast and what it reads with take credentials from the environment alone.
    os.environ |= {key: value for key, value in locations.secrets().items() if key.startswith("AWS_")}
    import yaml
    from feast.errors import FeastError
    from feast.repo_config import FeastConfigError

    try:
        _demand_registry(config)
        return feast.FeatureStore(fs_yaml_file=config)
    except UNREACHABLE as error:
        raise _away("registry", error) from None
    except (yaml.YAMLError, FeastConfigError, FeastError) as error:
        raise _unfit(type(error).__name__) from None


def _demand_registry(config: Path) -> None:
    """Feast makes an empty registry where there is none, and would then say that it has no such service."""
    import yaml

    document = yaml.safe_load(config.read_text())
    if not isinstance(document, dict):
        raise _unfit("no mapping")
    registry = document.get("registry")
    path = registry.get("path") if isinstance(registry, dict) else registry
    if isinstance(path, str) and "://" not in path and not Path(config.parent, path).is_file():
        raise DataRefused(
            "SourceNotFound", f"the registry {path} of {CONFIG} does not exist; check its path, or run feast apply"
        )


def _service(store: Any, source: Feast) -> Any:
    from feast.errors import FeatureServiceNotFoundException

    try:
        return store.get_feature_service(source.feature_service)
    except FeatureServiceNotFoundException:
        there = sorted(each.name for each in store.list_feature_services())
        raise DataRefused(
            "SourceNotFound",
            f"data.source.feast.featureService is {source.feature_service!r}; the registry of project {store.project} "
            f"has {', '.join(there) or 'none'}; use one of them, or run feast apply",
        ) from None
    except UNREACHABLE as error:
        raise _away("registry", error) from None


def _joined(store: Any, service: Any, views: list[Any], frame: pd.DataFrame, time: str, source: Feast) -> pd.DataFrame:
    from feast.errors import FeatureNameCollisionError

    asked = frame.rename(columns={time: TIME}).assign(**{ROW: range(len(frame))})
    written = any(view.batch_source.created_timestamp_column for view in views)
    try:
        answer = store.get_historical_features(
            entity_df=asked, features=service, filter_by_created_timestamp=written
        ).to_df()
    except FeatureNameCollisionError:
        raise DataRefused(
            "AmbiguousColumn",
            f"{source.feature_service} has features of one name in several views, or one that the entity frame has "
            "too; rename it in the feature service",
        ) from None
    except NotImplementedError:
        raise DataRefused(
            "FutureUnknown",
            f"the offline store of {CONFIG} cannot leave out what was written after a row's time, and a view of "
            f"{source.feature_service} says when its values were written; use a store that can",
        ) from None
    except FileNotFoundError:
        raise DataRefused(
            "SourceNotFound", f"a source of {source.feature_service} does not exist; check the paths in the registry"
        ) from None
    except PermissionError:
        raise DataRefused(
            "AccessDenied", f"a source of {source.feature_service} may not be read; check the Secret of configSecretRef"
        ) from None
    except UNREACHABLE as error:
        raise _away("offline store", error) from None
    columns = [name for name in answer.columns if name not in asked.columns]
    found = answer.set_index(ROW)[columns].reindex(range(len(frame)))
    whole = pd.concat([frame, found], axis=1)
    whole.attrs["seen"] = [*frame.attrs["seen"], *columns]
    return whole


def _unfit(kind: str) -> BadContract:
    """Without a word of what was read: it may be a password."""
    return BadContract(
        "NoFeatureStore",
        f"{CONFIG} in the Secret of data.source.feast.configSecretRef holds no settings that this image's Feast takes "
        f"({kind}); expected what Feast's documentation says of that file",
    )


def _away(what: str, error: Exception) -> Retryable:
    return Retryable(
        "SourceUnreachable", f"Feast's {what} cannot be reached ({type(error).__name__}); it is tried again"
    )
