"""What training runs may use, assembled from the settings."""

from agents.train.job import Resources
from app.registry import signer
from app.settings import Settings
from stream.connection import KafkaConnection


def resources_of(settings: Settings, connection: KafkaConnection, embedded: bool) -> Resources:
    """Return what a run needs beside its stream. The `embedded` broker cannot tell what is committed."""
    return Resources(
        connection=connection,
        read_committed=not embedded,
        model_storage_dir=settings.model_storage_dir,
        signer=signer(settings),
        training_dir=settings.training_dir,
        threads=settings.training_threads,
        sql_url=settings.training_sql_url,
        optuna_storage=settings.optuna_storage,
        mlflow_uri=settings.mlflow_uri,
        mlflow_experiment=settings.mlflow_experiment,
    )
